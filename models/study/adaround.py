"""AdaRound (Nagel et al., 2020): whether each weight is rounded up or down is learnt, layer by layer, without labels.

A layer learns from its input in the network that is quantized so far, and from its output in FP32, at random positions
of the calibration images. The first and the last layer keep their 8 bits, rounded to the nearest.
"""

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor
from tqdm import tqdm

from models import cifar10
from models.engines.network import FoldedLayer
from models.engines.quantized import QuantizedLayer
from models.study import flows
from models.study.correction import Pair, walk
from models.study.flows import Flow
from models.topology import Network

POSITIONS = 8192
"""Positions of outputs to learn from."""
BATCH = 256
"""Positions of one step."""
LEARNING_RATE = 1e-2
STRENGTH = 0.01
"""Weight of the term that drives roundings to up or down."""
GENTLE, SHARP, WARM_UP = 20.0, 2.0, 0.2
"""Exponent of that term at its beginning and at its end, and the share of the steps before it begins."""
LOW, HIGH = -0.1, 1.1
"""The stretch of the sigmoid, of which 0 to 1 is used."""


def adaround(
    exact: Network[FoldedLayer],
    network: Network[QuantizedLayer],
    images: cifar10.Images,
    steps: int,
    most: int,
    seed: int,
) -> Network[QuantizedLayer]:
    """Return the quantized network with learnt roundings.

    Args:
        exact: the FP32 network, whose weights are rounded.
        network: the same network, quantized: its scales and ranges stay.
        images: `[N, 3, S, S] uint8` to learn from.
        steps: for each layer.
        most: the largest magnitude of a weight.
        seed: chooses the positions.
    """
    found = {layer.spec.name: layer for layer in network}
    generator = torch.Generator().manual_seed(seed)
    bar = tqdm(total=len(found) - 2, desc="AdaRound", unit="layer", leave=False)

    def convolve(layer: FoldedLayer, x: Pair) -> Pair:
        with torch.inference_mode():
            target = flows.convolved(layer, x.exact)
        ours = found[layer.spec.name]
        if layer is not exact.stem:
            rows, wanted = sampled(layer, x.quantized.rounded, target, generator)
            weight = learnt(layer, ours, (rows, wanted), steps, most, generator)
            ours = found[layer.spec.name] = replace(ours, weight=weight)
            bar.update()
        with torch.inference_mode():
            y = flows.convolved(ours, x.quantized)
        return Pair(Flow(target, target), Flow(y, y))

    @torch.inference_mode()
    def finish(layer: FoldedLayer, y: Pair, added: Pair | None = None) -> Pair:
        return Pair(
            flows.finished(layer, y.exact.exact, added and added.exact),
            flows.finished(found[layer.spec.name], y.quantized.exact, added and added.quantized),
        )

    walk(exact, network, images, convolve, finish)
    bar.close()
    return network.map(lambda layer: found[layer.spec.name])


def sampled(layer: FoldedLayer, x: Tensor, target: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return the windows of random positions, `[P, in * k * k]`, and what FP32 makes of them, `[P, out]`."""
    spec, count = layer.spec, len(x)
    each = max(1, POSITIONS // count)
    places = target.shape[2] * target.shape[3]
    rows, wanted = [], []
    for image in range(count):
        chosen = torch.randint(0, places, (each,), generator=generator)
        windows = F.unfold(
            x[image : image + 1].contiguous(), spec.shape[2], padding=spec.shape[2] // 2, stride=spec.stride
        )
        rows.append(windows[0].T[chosen])
        wanted.append(target[image].flatten(1).T[chosen])
    return torch.cat(rows).clone(), torch.cat(wanted).clone()


def learnt(
    layer: FoldedLayer,
    ours: QuantizedLayer,
    examples: tuple[Tensor, Tensor],
    steps: int,
    most: int,
    generator: torch.Generator,
) -> np.ndarray:
    """Return the integer weights that reproduce the wanted outputs best."""
    rows, wanted = examples
    scale = torch.from_numpy(ours.weight_scale)[:, None]
    exact = torch.from_numpy(layer.weight).flatten(1) / scale
    below, bias = exact.floor(), torch.from_numpy(ours.bias)
    share = ((exact - below) - LOW) / (HIGH - LOW)
    variable = torch.log(share / (1 - share)).requires_grad_()
    optimizer = torch.optim.Adam([variable], LEARNING_RATE)
    activation: Callable[[Tensor], Tensor] = F.relu if layer.spec.relu else lambda y: y
    for step in range(steps):
        chosen = torch.randint(0, len(rows), (BATCH,), generator=generator)
        up = (torch.sigmoid(variable) * (HIGH - LOW) + LOW).clamp(0, 1)
        weight = (below + up).clamp(-most, most) * scale
        found = activation(F.linear(rows[chosen], weight, bias))
        loss = (found - activation(wanted[chosen])).pow(2).sum(1).mean()
        if (progress := (step / steps - WARM_UP) / (1 - WARM_UP)) > 0:
            exponent = SHARP + (GENTLE - SHARP) * 0.5 * (1 + np.cos(progress * np.pi))
            loss = loss + STRENGTH * (1 - (2 * up - 1).abs().pow(exponent)).sum()
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        integers = (below + (variable > 0)).clamp(-most, most)
    shaped: np.ndarray = integers.reshape(layer.spec.shape).numpy().astype(np.int8)
    return shaped

"""Repairs after training: cross-layer equalization (Nagel et al., 2019), and correction of mean and variance.

Correcting the mean alone (the bias) is not enough with 4 bits: rounding to the least squared error makes each layer's
outputs a little smaller, and with their means held the ReLUs cut off more in every layer, down to logits of 0.
"""

from collections.abc import Callable
from dataclasses import replace
from typing import NamedTuple

import numpy as np
import torch
from tqdm import tqdm

from models import cifar10
from models.engines.network import FoldedLayer, assemble
from models.engines.quantized import QuantizedLayer
from models.study import flows
from models.study.flows import Flow
from models.topology import Network

SMALLEST = 1e-6
"""Least standard deviation of a channel that is divided by."""


class Pair(NamedTuple):
    """The same output in the FP32 network and in the quantized one."""

    exact: Flow
    quantized: Flow


def equalized(network: Network[FoldedLayer]) -> Network[FoldedLayer]:
    """Return an FP32 network with the same answers, whose neighbouring weights have channels of similar range.

    Only outputs that exactly one layer reads can be scaled, those inside of a block.
    """
    found = {layer.spec.name: layer for layer in network}
    for first, second in _only_readers(network):
        a, b = found[first], found[second]
        ours = np.abs(a.weight).reshape(len(a.weight), -1).max(1)
        theirs = np.abs(b.weight).max((0, 2, 3))
        factor = np.sqrt(np.maximum(ours, 1e-8) / np.maximum(theirs, 1e-8)).astype(np.float32)
        found[first] = replace(a, weight=a.weight / factor[:, None, None, None], bias=a.bias / factor)
        found[second] = replace(b, weight=b.weight * factor[None, :, None, None])
    return network.map(lambda layer: found[layer.spec.name])


def _only_readers(network: Network[FoldedLayer]) -> list[tuple[str, str]]:
    """Return the pairs of names of a layer and the one convolution that alone reads its output."""
    readers: dict[str, list[str]] = {}

    def plain(layer: FoldedLayer) -> Callable[[str], str]:
        return lambda x: _noted(layer, x)

    def residual(layer: FoldedLayer) -> Callable[[str, str], str]:
        def read(x: str, added: str) -> str:
            readers.setdefault(added, []).append("")
            return _noted(layer, x)

        return read

    def _noted(layer: FoldedLayer, x: str) -> str:
        readers.setdefault(x, []).append(layer.spec.name)
        return layer.spec.name

    last = assemble(network, plain, residual, lambda x: x)("")
    readers.setdefault(last, []).append("")
    return [(name, of[0]) for name, of in readers.items() if name and len(of) == 1 and of[0]]


@torch.inference_mode()
def corrected(
    exact: Network[FoldedLayer], network: Network[QuantizedLayer], images: cifar10.Images
) -> Network[QuantizedLayer]:
    """Return the quantized network whose channels have FP32's means and standard deviations over `images`.

    Layer by layer, the scale of each channel's weights takes in the ratio of the deviations and its bias the error of
    the mean (Banner et al., 2019, https://arxiv.org/abs/1810.05723).
    """
    found = {layer.spec.name: layer for layer in network}
    bar = tqdm(total=len(found), desc="bias correction", unit="layer", leave=False)

    def convolve(layer: FoldedLayer, x: Pair) -> Pair:
        target = flows.convolved(layer, x.exact)
        ours = found[layer.spec.name]
        y = flows.convolved(ours, x.quantized)
        ratio = target.std((0, 2, 3)) / y.std((0, 2, 3)).clamp_min(SMALLEST)
        bias = target.mean((0, 2, 3)) + ratio * (torch.from_numpy(ours.bias) - y.mean((0, 2, 3)))
        scale = ours.weight_scale * ratio.numpy()
        found[layer.spec.name] = replace(ours, weight_scale=scale, bias=bias.numpy())
        bar.update()
        y = flows.convolved(found[layer.spec.name], x.quantized)
        return Pair(Flow(target, target), Flow(y, y))

    def finish(layer: FoldedLayer, y: Pair, added: Pair | None = None) -> Pair:
        ours = found[layer.spec.name]
        return Pair(
            flows.finished(layer, y.exact.exact, added and added.exact),
            flows.finished(ours, y.quantized.exact, added and added.quantized),
        )

    last = walk(exact, network, images, convolve, finish)
    head = found[network.head.spec.name]
    error = flows.logits(network, last.quantized) - flows.logits(exact, last.exact)
    found[head.spec.name] = replace(head, bias=head.bias - error.mean(0).numpy())
    bar.close()
    return network.map(lambda layer: found[layer.spec.name])


def walk(
    exact: Network[FoldedLayer],
    network: Network[QuantizedLayer],
    images: cifar10.Images,
    convolve: Callable[[FoldedLayer, Pair], Pair],
    finish: Callable[..., Pair],
) -> Pair:
    """Run both networks over all images at once, layer by layer; return the last block's output.

    Args:
        exact: the FP32 network.
        network: the quantized network, of which only the stem's kind matters here.
        images: `[N, 3, S, S] uint8`; an image of 32 pixels takes 2.6 MB.
        convolve: returns a layer's convolutions from its inputs.
        finish: returns its outputs from its convolutions, and from what is added to them.
    """

    def plain(layer: FoldedLayer) -> Callable[[Pair], Pair]:
        return lambda x: finish(layer, convolve(layer, x))

    def residual(layer: FoldedLayer) -> Callable[[Pair, Pair], Pair]:
        return lambda x, added: finish(layer, convolve(layer, x), added)

    def pool(x: Pair) -> Pair:
        return Pair(flows.pooled(x.exact), flows.pooled(x.quantized))

    return assemble(exact, plain, residual, pool)(Pair(flows.start(exact, images), flows.start(network, images)))

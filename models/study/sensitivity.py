"""Sensitivity: what quantizing one layer alone costs, and what keeping one layer alone gains, at 8 and at 4 bits.

Activations have 8 bits throughout: a layer that is quantized has integer weights and reads rounded inputs. As a check,
the curvature of the loss predicts the order without a single quantized forward (HAWQ-V2, Dong et al., 2020,
https://arxiv.org/abs/1911.03852): the mean trace of the Hessian (Hutchinson) times the squared error of the weights.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from tqdm import tqdm

from models import cifar10
from models.engines.network import FoldedLayer, mean_and_scale
from models.engines.quantized import QuantizedLayer
from models.logits import sqnr
from models.study import bound, results, rounding, running
from models.study.building import Source, plain
from models.study.recipes import RECIPES, Recipe
from models.study.simulated import Simulated
from models.topology import Network

IMAGES = 1000
"""Test images that each network answers, the first ones."""
PROBES, CURVATURE_IMAGES, CURVATURE_BATCH = 4, 64, 16
"""Random vectors of the Hutchinson estimate, and the training images that it sees."""
BITS = {8: "int8-least-squares", 4: "w4a8-nearest"}
"""The recipe of the study for each number of bits."""


@dataclass(frozen=True)
class Cost:
    """The answers of one network on the subset."""

    top1: float
    """0 to 1."""
    logit_sqnr_db: float


@dataclass(frozen=True)
class LayerCost:
    """The sensitivity of one layer."""

    layer: str
    bits: int
    only: Cost
    """With only this layer quantized."""
    without: Cost
    """With every other layer quantized."""
    predicted: float
    """Mean trace of the Hessian, times the squared error of the weights."""


@dataclass(frozen=True)
class Sensitivity:
    """All layers, at the bits that were measured."""

    identity: str
    images: int
    reference_top1: float
    rows: tuple[LayerCost, ...]

    def of(self, bits: int) -> list[LayerCost]:
        """Return the layers at so many bits, the most sensitive first."""
        return sorted((row for row in self.rows if row.bits == bits), key=lambda row: row.only.logit_sqnr_db)

    def rank_correlation(self, bits: int) -> float:
        """Return Spearman's correlation of the predicted order with the measured one."""
        rows = self.of(bits)
        predicted = np.argsort(np.argsort([-row.predicted for row in rows]))
        return float(np.corrcoef(predicted, np.arange(len(rows)))[0, 1])


def measure(source: Source, identity: str, layers: Sequence[str], bits: int) -> Sensitivity:
    """Measure the named layers at so many bits; two networks for each, on the first test images."""
    shown, labels, reference = source.images[:IMAGES], source.labels[:IMAGES], source.reference[:IMAGES]
    everything = frozenset(layer.spec.name for layer in source.network)
    traces = curvature(source.network, source.calibration[:CURVATURE_IMAGES])
    rows = []
    bar = tqdm(total=len(layers) * 2, desc=f"sensitivity at {bits} bits", unit="network", leave=False)

    def cost(network: Network[QuantizedLayer]) -> Cost:
        logits = running.answers(running.forward(network, source.threads), shown, "images")
        bar.update()
        return Cost(float((logits.argmax(1) == labels).mean()), results.finite(sqnr(reference, logits)))

    recipe = RECIPES[BITS[bits]]
    low = plain(recipe, source)
    choose = bound.blend(low, rounding.kept_floating(low, source.network, everything))
    for layer in (one for one in source.network if one.spec.name in layers):
        own = layer.spec.name
        only, without = cost(choose(everything - {own})), cost(choose(frozenset({own})))
        predicted = traces[own] * weight_error(layer, source.network, recipe)
        rows.append(LayerCost(own, bits, only, without, predicted))
    bar.close()
    top1 = float((reference.argmax(1) == labels).mean())
    return Sensitivity(identity, len(shown), top1, tuple(rows))


def weight_error(layer: FoldedLayer, network: Network[FoldedLayer], recipe: Recipe) -> float:
    """Return the sum of the squared errors of the layer's rounded weights, in the units of normalised images."""
    found = rounding.nearest(layer, network, recipe)
    real = found.weight * found.scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    if layer is network.stem:
        real = real / mean_and_scale(network.input)[1]
    return float(((real - layer.weight) ** 2).sum())


def curvature(network: Network[FoldedLayer], images: cifar10.Images) -> dict[str, float]:
    """Return the mean trace of the Hessian by layer: of the loss of the network's own answers on `images`."""
    net = Simulated(network, rounds=False)
    weights = [layer.weight for layer in net.layers]
    mean, scale = mean_and_scale(network.input)
    generator = torch.Generator().manual_seed(0)
    traces: NDArray[np.float64] = np.zeros(len(weights))
    for first in tqdm(range(0, len(images), CURVATURE_BATCH), desc="curvature", leave=False):
        x = torch.from_numpy((images[first : first + CURVATURE_BATCH] - mean) * scale)
        logits = net(x)
        loss = F.cross_entropy(logits, logits.detach().argmax(1))
        gradients = torch.autograd.grad(loss, weights, create_graph=True)
        for _ in range(PROBES):
            probes = [torch.randint(0, 2, w.shape, generator=generator).float() * 2 - 1 for w in weights]
            products = torch.autograd.grad(gradients, weights, probes, retain_graph=True)
            traces += [float((v * h).sum()) / v.numel() for v, h in zip(probes, products, strict=True)]
    names = [layer.spec.name for layer in network]
    return dict(zip(names, (traces / (PROBES * -(-len(images) // CURVATURE_BATCH))).tolist(), strict=True))

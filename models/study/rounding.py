"""Weights as integers, and the quantized network made of them. Imports no torch."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from models.calibrate import Range
from models.engines import quantized
from models.engines.network import FoldedLayer, mean_and_scale
from models.engines.quantized import QuantizedLayer
from models.study.recipes import Recipe
from models.topology import Network

SHRINKS = np.linspace(0.3, 1.0, 71)
"""Shares of the largest weight that the least-squares scale tries."""
SMALLEST = np.float32(1e-12)
"""Least magnitude that a scale is made from, so that no scale is 0."""


@dataclass(frozen=True)
class Integers:
    """A layer's weights as integers. The stem's are for pixels minus their mean, on the scale 0 to 255."""

    weight: NDArray[np.int8]
    """Shaped as in FoldedLayer."""
    scale: NDArray[np.float32]
    """`[out] float32`."""


def limit(bits: int) -> int:
    """Return the largest magnitude of a weight of so many bits: 127 for 8, 7 for 4."""
    return int(2 ** (bits - 1) - 1)


def weight_bits(recipe: Recipe, layer: FoldedLayer, network: Network[FoldedLayer]) -> int:
    """Return the bits of a layer's weights; the first and the last layer have the recipe's `edge_bits`."""
    return recipe.edge_bits if layer is network.stem or layer is network.head else recipe.weight_bits


def real_weight(layer: FoldedLayer, network: Network[FoldedLayer]) -> NDArray[np.float32]:
    """Return the weight that is rounded: the stem's takes in the scale of the normalisation."""
    if layer is network.stem:
        return np.asarray(layer.weight * mean_and_scale(network.input)[1], np.float32)
    return layer.weight


def scale_of(weight: NDArray[np.float32], most: int, recipe: Recipe) -> NDArray[np.float32]:
    """Return the `[out] float32` scales with which weights of at most `most` stand for `weight`."""
    rows = weight.reshape(len(weight), -1) if recipe.per_channel else weight.reshape(1, -1)
    scale = np.maximum(np.abs(rows).max(1), SMALLEST) / np.float32(most)
    if recipe.weights == "least-squares":
        scale = _least_squares(rows, scale, most)
    return np.broadcast_to(scale, len(weight)).astype(np.float32)


def _least_squares(rows: NDArray[np.float32], scale: NDArray[np.float32], most: int) -> NDArray[np.float32]:
    """Return the share of each row's scale with the least squared error of rounding."""
    best, least = scale, np.full(len(rows), np.inf)
    for shrink in SHRINKS:
        tried = (scale * np.float32(shrink))[:, None]
        error = ((np.rint(rows / tried).clip(-most, most) * tried - rows) ** 2).sum(1)
        best, least = np.where(error < least, tried[:, 0], best), np.minimum(error, least)
    return best


def nearest(layer: FoldedLayer, network: Network[FoldedLayer], recipe: Recipe) -> Integers:
    """Return the layer's weights, rounded to the nearest integers."""
    weight, most = real_weight(layer, network), limit(weight_bits(recipe, layer, network))
    scale = scale_of(weight, most, recipe)
    integers = np.rint(weight / scale.reshape(-1, *[1] * (weight.ndim - 1))).clip(-most, most)
    return Integers(integers.astype(np.int8), scale)


def assembled(
    network: Network[FoldedLayer], integers: Mapping[str, Integers], ranges: Mapping[str, Range], activation_bits: int
) -> Network[QuantizedLayer]:
    """Return the quantized network.

    Args:
        network: the FP32 network, which gives the biases.
        integers: each layer's weights by name.
        ranges: each convolution's range by name, chosen for `activation_bits`.
        activation_bits: of every output, except of the one that the head reads, which has at least 8.
    """
    last = list(network)[-2].spec.name

    def quantized_layer(layer: FoldedLayer) -> QuantizedLayer:
        name = layer.spec.name
        weight, bias, found = integers[name].weight, layer.bias, integers[name]
        if layer is network.stem:
            weight, bias = quantized.framed(weight, found.scale, bias, network.input)
        levels = 2 ** (max(8, activation_bits) if name == last else activation_bits)
        scale, offset = step_and_offset(ranges.get(name, (0.0, 0.0)), levels)
        return QuantizedLayer(layer.spec, weight, found.scale, bias, scale, offset, levels)

    return network.map(quantized_layer)


def step_and_offset(found: Range, levels: int) -> tuple[float, int]:
    """Return the scale of an output with this range, and the integer that stands for its 0."""
    low, high = found
    step = (high - low) / (levels - 1)
    return step, round(-low / step) if low < 0 else 0


def kept_floating(
    network: Network[QuantizedLayer], exact: Network[FoldedLayer], names: frozenset[str]
) -> Network[QuantizedLayer]:
    """Return the network with the named layers in floating point: exact weights, and their input before rounding."""
    by_name = {layer.spec.name: layer for layer in exact}

    def kept(layer: QuantizedLayer) -> QuantizedLayer:
        if layer.spec.name not in names:
            return layer
        folded = by_name[layer.spec.name]
        weight, bias, ones = real_weight(folded, exact), folded.bias, np.ones(len(folded.bias), np.float32)
        if folded is exact.stem:
            weight, bias = quantized.framed(weight, ones, bias, exact.input)
        return QuantizedLayer(layer.spec, weight, ones, bias, layer.output_scale, layer.offset, layer.levels)

    return network.map(kept)

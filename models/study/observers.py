"""Observers: how a range is chosen from what calibration saw of an output. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models import calibrate, cifar10
from models.calibrate import BATCH, BINS, Range
from models.engines import openvino
from models.engines.network import FoldedLayer
from models.topology import Network

KEPT = 0.9
"""Weight of the past in the moving average, batch by batch."""
SHRINKS = np.linspace(0.04, 1.0, 193)
"""Shares of the seen range that `least-squares` and `entropy` try. Ranges of 4 bits are far narrower than of 8."""
LEAST_COUNT = 1e-9
"""Stands in for an empty bin in the divergence."""


@dataclass(frozen=True)
class Seen:
    """What calibration saw of one output."""

    extremes: Range
    """The least and the largest value, and 0."""
    average: Range
    """Moving averages of each batch's extremes."""
    counts: NDArray[np.float64]
    """Values in each of BINS equal parts of `extremes`."""


def watch(network: Network[FoldedLayer], images: cifar10.Images) -> dict[str, Seen]:
    """Return what the FP32 network's convolutions put out on `[N, 3, S, S] uint8` images, by name."""
    run = openvino.outputs(network)
    batches = [images[first : first + BATCH] for first in range(0, len(images), BATCH)]
    bar = tqdm(batches + batches, desc="calibration", unit="batch", leave=False)
    passes = iter(bar)
    found = [{name: (float(y.min()), float(y.max())) for name, y in run(next(passes)).items()} for _ in batches]
    extremes = calibrate.widest(found)
    counts = {name: np.zeros(BINS) for name in extremes}
    for batch in passes:
        for name, y in run(batch).items():
            counts[name] += calibrate.histogram(y, extremes[name])
    return {name: Seen(extremes[name], _average([one[name] for one in found]), counts[name]) for name in extremes}


def _average(ranges: list[Range]) -> Range:
    low, high = ranges[0]
    for next_low, next_high in ranges[1:]:
        low, high = KEPT * low + (1 - KEPT) * next_low, KEPT * high + (1 - KEPT) * next_high
    return min(0.0, low), max(0.0, high)


def minmax(seen: Seen, levels: int) -> Range:
    """Return the range of every value."""
    return seen.extremes


def average(seen: Seen, levels: int) -> Range:
    """Return the moving average of the batches' ranges."""
    return seen.average


def percentile(seen: Seen, levels: int) -> Range:
    """Return the range without the outermost 0.01 % of values."""
    return calibrate.percentile(seen.counts, seen.extremes)


def least_squares(seen: Seen, levels: int) -> Range:
    """Return the range with the least squared error of rounding and clipping."""
    return calibrate.least_error(seen.counts, seen.extremes, levels, SHRINKS)


def entropy(seen: Seen, levels: int) -> Range:
    """Return the range whose rounded values have the least Kullback-Leibler divergence from the exact ones (Migacz)."""
    low, high = seen.extremes
    zero = round(-low / (high - low) * BINS)
    counts = seen.counts.copy()
    if low == 0:
        counts[0] = 0  # mostly exact zeros of the ReLU, which every range represents exactly

    def divergence(shrink: float) -> float:
        first, last = round(zero * (1 - shrink)), zero + round((BINS - zero) * shrink)
        exact = counts[first:last].copy()
        is_used = exact > 0
        group = np.arange(last - first) * levels // (last - first)
        used = np.bincount(group, is_used, levels)
        means = np.bincount(group, exact, levels) / np.maximum(used, 1)
        rounded = np.where(is_used, means[group], 0.0)
        exact[0] += counts[:first].sum()
        exact[-1] += counts[last:].sum()
        p, q = exact / exact.sum(), np.maximum(rounded / rounded.sum(), LEAST_COUNT)
        return float((p[p > 0] * np.log(p[p > 0] / q[p > 0])).sum())

    most_bins = [shrink for shrink in SHRINKS if shrink * BINS >= levels]
    best = float(min(most_bins, key=divergence))
    return low * best, high * best


Observer = Callable[[Seen, int], Range]
"""From what was seen and the number of levels to a range that includes 0."""
OBSERVERS: dict[str, Observer] = {
    "minmax": minmax,
    "average": average,
    "percentile": percentile,
    "entropy": entropy,
    "least-squares": least_squares,
}

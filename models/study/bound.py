"""Mixed precision with a bound on the loss: as few layers as possible keep a higher precision. Imports no torch.

Layers are ranked by the error of the logits when only that layer is quantized. A bisection then finds how many of the
ranking, from its head, must be kept so that the whole 95 % interval of the paired difference lies above the bound.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models import cifar10
from models.engines.quantized import QuantizedLayer
from models.evaluation import statistics
from models.evaluation.statistics import Paired
from models.logits import sqnr
from models.study import running
from models.topology import Network

RANKING_IMAGES = 256
"""Images for the ranking, which needs no labels."""

Choice = Callable[[frozenset[str]], Network[QuantizedLayer]]
"""From the names of the layers to keep to the network."""


@dataclass(frozen=True)
class Bounded:
    """The result of a search."""

    kept: tuple[str, ...]
    """Names of the layers that keep the higher precision, the most sensitive first."""
    ranking: tuple[tuple[str, float], ...]
    """Every layer with the logit SQNR, in dB, when only it is quantized; the most sensitive first."""
    paired: Paired
    """The difference from the reference with these layers kept."""
    max_drop: float
    """The bound, 0 to 1."""
    images: int
    tried: tuple[tuple[int, float], ...]
    """How many layers were kept in each trial, and the lower end of its interval."""

    @property
    def is_met(self) -> bool:
        """Return whether the interval lies above the bound."""
        return (self.paired.difference.low or 0.0) >= -self.max_drop


def blend(low: Network[QuantizedLayer], high: Network[QuantizedLayer]) -> Choice:
    """Return the choice between the layers of two networks: of `high` for the kept ones."""
    better = {layer.spec.name: layer for layer in high}

    def choose(names: frozenset[str]) -> Network[QuantizedLayer]:
        return low.map(lambda layer: better[layer.spec.name] if layer.spec.name in names else layer)

    return choose


def rank(
    choose: Choice, reference: NDArray[np.float32], images: cifar10.Images, threads: int
) -> tuple[tuple[str, float], ...]:
    """Return the layers with the SQNR of the logits when only that layer is quantized, the most sensitive first.

    Args:
        choose: builds the networks.
        reference: the FP32 logits of the images.
        images: `[N, 3, S, S] uint8`.
        threads: of the CPU.
    """
    names = [layer.spec.name for layer in choose(frozenset())]
    found = []
    for name in tqdm(names, desc="sensitivity", unit="layer", leave=False):
        run = running.forward(choose(frozenset(names) - {name}), threads)
        found.append((name, sqnr(reference, running.answers(run, images, name)) or np.inf))
    return tuple(sorted(found, key=lambda pair: pair[1]))


def search(
    choose: Choice,
    reference: NDArray[np.float32],
    images: cifar10.Images,
    labels: cifar10.Labels,
    max_drop: float,
    threads: int,
) -> Bounded:
    """Return the fewest layers to keep so that the loss against the reference stays within `max_drop` (0 to 1).

    The bisection takes for granted that keeping more layers does not lose more.
    """
    first = slice(0, RANKING_IMAGES)
    ranking = rank(choose, reference[first], images[first], threads)
    tried: dict[int, Paired] = {}

    def low_with(count: int) -> float:
        if count not in tried:
            names = frozenset(name for name, _ in ranking[:count])
            run = running.forward(choose(names), threads)
            logits = running.answers(run, images, f"{count} layers kept")
            tried[count] = statistics.compare(logits, reference, labels, "fp32")
        return tried[count].difference.low or 0.0

    count = bisected(low_with, len(ranking), -max_drop)
    low_with(count)
    lows = tuple((kept, paired.difference.low or 0.0) for kept, paired in sorted(tried.items()))
    names = tuple(name for name, _ in ranking[:count])
    return Bounded(names, ranking, tried[count], max_drop, len(images), lows)


def bisected(low_with: Callable[[int], float], most: int, bound: float) -> int:
    """Return the least count of 0 to `most` with `low_with(count) >= bound`; `most` if there is none."""
    least = 0
    while least < most:
        middle = (least + most) // 2 if least else 0
        if low_with(middle) >= bound:
            most = middle
        else:
            least = middle + 1
    return most


def said(found: Bounded, kept_in: str) -> str:
    """Return the result as a sentence."""
    low, high = found.paired.difference.low or 0.0, found.paired.difference.high or 0.0
    layers = ", ".join(found.kept) or "no layer"
    verdict = "within" if found.is_met else "NOT within"
    more = "" if found.is_met else "; more test images narrow the interval"
    return (
        f"kept in {kept_in}: {layers}; difference {100 * found.paired.difference.estimate:+.2f} points "
        f"[{100 * low:+.2f}, {100 * high:+.2f}] on {found.images:,} images, "
        f"{verdict} the bound of {100 * found.max_drop:g} points{more}"
    )

"""Quantiles and intervals. Functions name the source of their method; tests check the coverage by simulation."""

import math
from collections.abc import Callable, Sequence
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from common.statistics import Interval, proportion

Floats = NDArray[np.float64]
Counts = NDArray[np.int32]
RESAMPLES = 2000
CHUNK = 100_000
"""Weights that one step of the resampling holds: few enough to stay in a processor's cache."""
MINIMUM_ROUNDS = 5
"""Rounds that an interval needs."""


def quantile(values: Sequence[float] | Floats, q: float) -> float | None:
    """Return the smallest value with at least the share `q` of all values at or below it; None without values."""
    return float(np.quantile(values, q, method="inverted_cdf")) if len(values) else None


def enough(q: float, confidence: float = 0.99) -> int:
    """Return how many requests the `q` quantile needs. With fewer, all of them can lie below it by chance.

    It is the smallest n with `q ** n <= 1 - confidence`: 459 for p99, 90 for p95, 7 for p50, as in the MLPerf inference
    rules (early stopping, zero requests over the bound).
    """
    return math.ceil(math.log(1 - confidence) / math.log(q))


def stated_quantile(values: Sequence[float] | Floats, q: float) -> float | None:
    """Return the quantile, or None if there are too few values to state it."""
    return quantile(values, q) if len(values) >= enough(q) else None


def quantile_ratio(
    a: Sequence[Floats],
    b: Sequence[Floats],
    q: float,
    *,
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Interval | None:
    """Return the ratio a / b of the `q` quantiles of all rounds of each side, by bootstrap over rounds.

    `a[i]` and `b[i]` ran next to each other and are drawn together, so that a change of the machine's speed cancels.
    None if either side has too few values to state the quantile.
    """
    ours, theirs = Pool(a), Pool(b)
    if min(ours.size, theirs.size) < enough(q):
        return None
    everything = [np.ones((1, len(side)), dtype=np.int32) for side in (a, b)]
    estimate = float(ours.quantiles(everything[0], q)[0] / theirs.quantiles(everything[1], q)[0])
    if min(len(a), len(b)) < MINIMUM_ROUNDS:
        return Interval(estimate, None, None)
    drawn = _resample(len(a), seed, resamples)
    return _interval(estimate, ours.quantiles(drawn, q) / theirs.quantiles(drawn, q), len(a))


def mean_ratio(a: Floats, b: Floats, *, seed: int = 0) -> Interval | None:
    """Return the ratio a / b of the means over paired rounds, by bootstrap over rounds; None if `b` is 0."""
    if not len(a) or b.sum() <= 0:
        return None
    return _over_rounds(lambda drawn: (drawn @ a) / (drawn @ b), len(a), seed)


def unit_ratio(a: tuple[Floats, Floats], b: tuple[Floats, Floats], *, seed: int = 0) -> Interval | None:
    """Return the ratio a / b of amounts per unit, such as joules per image, by bootstrap over paired rounds.

    Each side holds the amounts and the units of its rounds. None if a side has no units, or `b` has no amount.
    """
    if min(a[1].sum(), *(part.sum() for part in b)) <= 0:
        return None
    return _over_rounds(
        lambda drawn: (drawn @ a[0]) / (drawn @ a[1]) / ((drawn @ b[0]) / (drawn @ b[1])), len(a[0]), seed
    )


def _over_rounds(number: Callable[[Counts], Floats], rounds: int, seed: int) -> Interval:
    """Return a number of all rounds with its interval. `number` takes how often each round counts, a row per result."""
    estimate = float(number(np.ones((1, rounds), dtype=np.int32))[0])
    if rounds < MINIMUM_ROUNDS:
        return Interval(estimate, None, None)
    with np.errstate(divide="ignore", invalid="ignore"):
        resampled = number(_resample(rounds, seed, RESAMPLES))
    return _interval(estimate, resampled, rounds)


class Pool:
    """The sorted values of all rounds. A resample then is a weight per round."""

    def __init__(self, rounds: Sequence[Floats]) -> None:
        values = np.concatenate([*rounds, np.empty(0)])
        owner = np.repeat(np.arange(len(rounds)), [len(r) for r in rounds])
        order = np.argsort(values, kind="stable")
        self._values, self._owner = values[order], owner[order]
        self.size = len(values)

    def quantiles(self, counts: Counts, q: float) -> Floats:
        """Return the `q` quantile for each row of `counts`, the numbers of draws of each round."""
        rows = max(1, CHUNK // max(1, self.size))
        parts = [self._quantiles(counts[i : i + rows], q) for i in range(0, len(counts), rows)]
        return np.concatenate(parts)

    def _quantiles(self, counts: Counts, q: float) -> Floats:
        cumulated = np.cumsum(counts[:, self._owner], axis=1, dtype=np.int32)
        totals = cumulated[:, -1:]
        ranks = np.ceil(q * totals - 1e-9).astype(np.int32)
        index = np.sum(cumulated < ranks, axis=1)
        return np.where(totals[:, 0] > 0, self._values[np.minimum(index, self.size - 1)], np.nan)


def _resample(rounds: int, seed: int, resamples: int) -> Counts:
    """Return how often each round is drawn, a row per resample."""
    rng = np.random.default_rng(seed)
    return rng.multinomial(rounds, np.full(rounds, 1 / rounds), size=resamples).astype(np.int32)


def _interval(estimate: float, resampled: Floats, rounds: int) -> Interval:
    """Return the percentile interval, widened for few rounds.

    Percentile intervals of n observations are too narrow: by the factor sqrt((n - 1) / n), and by using the normal
    distribution instead of Student's t. The expanded percentiles of Hesterberg, "What Teachers Should Know About the
    Bootstrap", 2015, section 3.3, correct both.
    """
    tail = NormalDist().cdf(-math.sqrt(rounds / (rounds - 1)) * t_quantile(0.975, rounds - 1))
    finite = resampled[np.isfinite(resampled)]
    if len(finite) < len(resampled) * 0.99:
        return Interval(estimate, None, None)
    low, high = np.quantile(finite, [tail, 1 - tail])
    return Interval(estimate, float(low), float(high))


def t_quantile(p: float, degrees: float) -> float:
    """Return Student's t quantile, within 0.5 % from 4 degrees of freedom and within 2 % from 3.

    Cornish-Fisher expansion, Abramowitz and Stegun 26.7.5.
    """
    z = NormalDist().inv_cdf(p)
    g1 = (z**3 + z) / 4
    g2 = (5 * z**5 + 16 * z**3 + 3 * z) / 96
    g3 = (3 * z**7 + 19 * z**5 + 17 * z**3 - 15 * z) / 384
    return z + g1 / degrees + g2 / degrees**2 + g3 / degrees**3


def difference(a: tuple[int, int], b: tuple[int, int]) -> Interval | None:
    """Return the share of `a` (successes, trials) minus that of `b`, on other trials (Newcombe, 1998, method 10)."""
    if not a[1] or not b[1]:
        return None
    ours, theirs = proportion(*a), proportion(*b)
    estimate = ours.estimate - theirs.estimate
    below = math.hypot(ours.estimate - (ours.low or 0.0), (theirs.high or 0.0) - theirs.estimate)
    above = math.hypot((ours.high or 0.0) - ours.estimate, theirs.estimate - (theirs.low or 0.0))
    return Interval(estimate, estimate - below, estimate + above)

"""Ratios between two runs that were apart in time, so that the machine may have changed its pace between them.

The rounds of one run are not independent then: a slow minute spans several of them. Two steps allow for that:

- The variance of a run's mean comes from the slowest cosine waves of its rounds alone (equal-weighted cosine transform;
  Lazarus, Lewis, Stock and Watson, "HAR Inference: Recommendations for Practice", 2018), with Student's t.
- The interval is twice as wide as that. A pace that wanders without end (a random walk) moves the mean of a run more
  than its waves show. `python -m benchmarks.coverage` simulates what the factor brings.

A pace that is constant inside each run and differs between the runs leaves no trace. No interval covers that.
"""

import math
from collections.abc import Sequence

import numpy as np

from common.statistics import Interval
from loadtest.analysis.statistics import MINIMUM_ROUNDS, Floats, Pool, enough, quantile, t_quantile

WAVES = 3
"""Cosine waves over a run whose squares state its variance: the three slowest."""
WANDERING = 2.0
"""Factor on the interval for a pace that wanders without end."""


def mean_ratio(a: Floats, b: Floats) -> Interval | None:
    """Return the ratio a / b of the means over the rounds of two runs, in the order of time; None if `b` is 0."""
    if not len(a) or b.sum() <= 0:
        return None
    if min(len(a), len(b)) < MINIMUM_ROUNDS:
        return Interval(float(a.mean() / b.mean()), None, None)
    return _ratio(*((float(side.mean()), (side.sum() - side) / (len(side) - 1)) for side in (a, b)))


def quantile_ratio(a: Sequence[Floats], b: Sequence[Floats], q: float) -> Interval | None:
    """Return the ratio a / b of the `q` quantiles of all rounds of each run, in the order of time.

    The quantiles vary as the jackknife says, but at least as the quantiles of single rounds do: where the answers of a
    round take nearly the same time, all rounds together hide how far rounds differ. None if either run has too few
    values to state the quantile.
    """
    pools = Pool(a), Pool(b)
    if min(pool.size for pool in pools) < enough(q):
        return None
    whole = [
        float(pool.quantiles(np.ones((1, len(side)), np.int32), q)[0]) for pool, side in zip(pools, (a, b), strict=True)
    ]
    if min(len(a), len(b)) < MINIMUM_ROUNDS:
        return Interval(whole[0] / whole[1], None, None)
    without = [
        pool.quantiles(1 - np.eye(len(side), dtype=np.int32), q) for pool, side in zip(pools, (a, b), strict=True)
    ]
    own = [np.log([quantile(r, q) or math.nan for r in side if len(r)]) for side in (a, b)]
    return _ratio((whole[0], without[0]), (whole[1], without[1]), [_variance(rounds) for rounds in own])


def _ratio(a: tuple[float, Floats], b: tuple[float, Floats], least: Sequence[float] = (0.0, 0.0)) -> Interval:
    """Return the ratio a / b. Each side is its estimate from all rounds and those without one round each.

    `least` are variances that the logarithms of the sides have at least.
    """
    estimate = a[0] / b[0]
    if not all(whole > 0 and np.all(without > 0) for whole, without in (a, b)):
        return Interval(estimate, None, None)
    jackknifed = [_variance(_pseudo(math.log(whole), np.log(without))) for whole, without in (a, b)]
    variances = np.maximum(jackknifed, least)
    half = WANDERING * t_quantile(0.975, _degrees(variances)) * math.sqrt(variances.sum())
    return Interval(estimate, estimate * math.exp(-half), estimate * math.exp(half))


def _pseudo(whole: float, without: Floats) -> Floats:
    """Return the jackknife's pseudo-values: the value of each round, as far as an estimate is the mean over rounds."""
    return len(without) * whole - (len(without) - 1) * without


def _variance(rounds: Floats) -> float:
    """Return the variance of the mean over rounds."""
    n = len(rounds)
    waves = np.cos(np.pi * np.outer(np.arange(1, WAVES + 1), (np.arange(n) + 0.5) / n))
    return float(np.mean((waves @ rounds) ** 2) * 2 / n**2)


def _degrees(variances: Floats) -> float:
    """Return Welch and Satterthwaite's degrees of freedom, from WAVES to twice as many."""
    total = variances.sum()
    return float(WAVES * total**2 / (variances**2).sum()) if total else 2.0 * WAVES

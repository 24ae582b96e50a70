"""The comparison of two runs that were apart, on simulated machines whose pace is a random walk from round to round."""

import numpy as np
import pytest

from loadtest.analysis.apart import mean_ratio, quantile_ratio
from loadtest.analysis.statistics import Floats

ROUNDS = 20
NOISE = 0.01
"""Standard deviation of the logarithm of a round's pace, besides the walk."""
DRIFTS = (0.0, 0.0017, 0.05)
"""Steps of the walk. With the second, intervals that ignore it find a difference in a third of identical pairs."""


def paces(rng: np.random.Generator, drift: float) -> Floats:
    """Return the pace of each round."""
    return np.exp(np.cumsum(np.r_[0.0, rng.normal(0, drift, ROUNDS - 1)]) + rng.normal(0, NOISE, ROUNDS))


def times(rng: np.random.Generator, drift: float, scale: float = 1.0) -> list[Floats]:
    """Return the latencies of fifty requests a round."""
    return [scale * pace * rng.lognormal(-4, 0.2, 50) for pace in paces(rng, drift)]


@pytest.mark.parametrize("drift", DRIFTS)
def test_identical_runs_rarely_differ_in_throughput(drift: float) -> None:
    """At most 7 % of 500 pairs of identical runs differ."""
    rng = np.random.default_rng(0)
    found = [mean_ratio(paces(rng, drift), paces(rng, drift)) for _ in range(500)]
    assert np.mean([ratio is not None and ratio.excludes(1.0) for ratio in found]) <= 0.07


@pytest.mark.parametrize("drift", DRIFTS)
def test_identical_runs_rarely_differ_in_latency(drift: float) -> None:
    """At most 7 % of 60 pairs of identical runs differ at p50, and at most 7 % at p95."""
    rng = np.random.default_rng(0)
    pairs = [(times(rng, drift), times(rng, drift)) for _ in range(60)]
    for q in (0.5, 0.95):
        found = [quantile_ratio(a, b, q) for a, b in pairs]
        assert np.mean([ratio is not None and ratio.excludes(1.0) for ratio in found]) <= 0.07


def test_a_slower_build_is_found() -> None:
    """At a drift that misleads intervals of independent rounds, 1.1 x in throughput and 1.2 x in p50 are found."""
    rng = np.random.default_rng(0)
    means = [mean_ratio(paces(rng, 0.0017), 1.1 * paces(rng, 0.0017)) for _ in range(40)]
    p50s = [quantile_ratio(times(rng, 0.0017, 1.2), times(rng, 0.0017), 0.5) for _ in range(40)]
    assert sum(ratio is not None and ratio.high is not None and ratio.high < 1 for ratio in means) >= 38
    assert sum(ratio is not None and ratio.low is not None and ratio.low > 1 for ratio in p50s) >= 38


def test_few_rounds_give_no_interval() -> None:
    """Four rounds give an estimate; rounds without answers give none."""
    ratio = mean_ratio(np.full(4, 2.0), np.full(4, 1.0))
    assert ratio is not None
    assert (ratio.estimate, ratio.low) == (2.0, None)
    assert mean_ratio(np.ones(6), np.zeros(6)) is None
    assert quantile_ratio([], [], 0.5) is None

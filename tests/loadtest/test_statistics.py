"""The statistics, checked against tables, closed forms, and simulated experiments with a planted truth."""

from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from common.statistics import Interval, paired_difference
from loadtest.analysis.accuracy import discordant
from loadtest.analysis.statistics import (
    difference,
    enough,
    mean_ratio,
    quantile,
    quantile_ratio,
    stated_quantile,
    t_quantile,
)

EXPERIMENTS = 200
RESAMPLES = 300
ROUNDS = 12
Sample = list[NDArray[np.float64]]


def experiment(seed: int, ratio: float, requests: int = 60) -> tuple[Sample, Sample]:
    """Return heavy-tailed latencies of two arms on a machine that drifts: each pair of rounds shares a factor."""
    rng = np.random.default_rng(seed)
    drift = rng.lognormal(0, 0.15, ROUNDS)
    own = rng.lognormal(0, 0.02, (2, ROUNDS))
    scale = np.array([[ratio], [1.0]]) * drift * own
    a, b = ([s * rng.lognormal(0, 0.3, requests) for s in arm] for arm in scale)
    return a, b


def share(holds: Callable[[int], bool]) -> float:
    return sum(holds(seed) for seed in range(EXPERIMENTS)) / EXPERIMENTS


def covers(interval: Interval | None, truth: float) -> bool:
    assert interval is not None
    return not interval.excludes(truth)


def finds(ratio: float, seed: int, requests: int = 60) -> bool:
    found = quantile_ratio(*experiment(seed, ratio, requests), 0.5, resamples=RESAMPLES)
    return not covers(found, 1.0)


@pytest.mark.parametrize(("q", "requests"), [(0.5, 60), (0.95, 60), (0.99, 100)])
def test_the_interval_of_a_ratio_of_quantiles_covers_the_truth(q: float, requests: int) -> None:
    """About 95 of 100 intervals hold the planted ratio (200 experiments: 92 to 99 is chance)."""
    covered = share(lambda seed: covers(quantile_ratio(*experiment(seed, 0.8, requests), q, resamples=RESAMPLES), 0.8))
    assert 0.92 <= covered <= 0.99


def test_the_interval_of_a_ratio_of_throughputs_covers_the_truth() -> None:
    """About 95 of 100 intervals hold the planted ratio of the means over six rounds."""

    def holds(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        drift = rng.lognormal(0, 0.15, 6)
        a, b = (mean * drift * rng.lognormal(0, 0.03, 6) for mean in (130.0, 100.0))
        return covers(mean_ratio(a, b), 1.3)

    assert 0.92 <= share(holds) <= 0.99


def test_identical_arms_are_told_apart_no_more_often_than_stated() -> None:
    """At most about 5 in 100 comparisons of an arm with itself find a difference."""
    assert share(lambda seed: finds(1.0, seed)) <= 0.08


def test_a_planted_difference_of_five_percent_is_found() -> None:
    """The machine drifts by 15 %, which cancels because the rounds are paired."""
    assert share(lambda seed: finds(0.95, seed, requests=200)) >= 0.8


def test_few_rounds_give_an_estimate_without_an_interval() -> None:
    """Four rounds give no interval, so they show no difference."""
    a, b = experiment(0, 0.8)
    ratio = quantile_ratio(a[:4], b[:4], 0.5)
    assert ratio is not None
    assert (ratio.low, ratio.excludes(1.0)) == (None, False)


def test_the_ratio_is_that_of_the_quantiles_in_the_table() -> None:
    """The estimate is the pooled quantile of one arm over that of the other."""
    a, b = experiment(1, 0.8)
    ratio = quantile_ratio(a, b, 0.95)
    expected = [quantile(np.concatenate(arm), 0.95) for arm in (a, b)]
    assert ratio is not None
    assert ratio.estimate == pytest.approx(expected[0] / expected[1])  # type: ignore[operator]


def test_too_few_requests_state_no_p99() -> None:
    """458 are too few, 459 are enough (MLPerf inference rules)."""
    assert enough(0.99) == 459
    assert stated_quantile(np.arange(458.0), 0.99) is None
    assert stated_quantile(np.arange(459.0), 0.99) == 454.0


def test_a_quantile_is_an_observed_value() -> None:
    """p95 of 1 to 100 is 95."""
    assert quantile(np.arange(1.0, 101.0), 0.95) == 95.0


@pytest.mark.parametrize(("degrees", "expected"), [(4, 2.7764), (5, 2.5706), (9, 2.2622), (29, 2.0452)])
def test_student_t_agrees_with_the_table(degrees: int, expected: float) -> None:
    """The two-sided 95 % values of the table are met within 0.5 %."""
    assert t_quantile(0.975, degrees) == pytest.approx(expected, rel=0.005)


@pytest.mark.parametrize("accuracy", [0.95, 0.99])
def test_the_paired_interval_of_accuracy_covers_the_truth(accuracy: float) -> None:
    """Two arms that are wrong on almost the same images; the true difference is -0.5 points."""
    images, flip = 1000, 0.01

    def holds(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        base = rng.random(images) < accuracy
        changed = rng.random(images) < flip
        worse = np.where(changed, rng.random(images) < accuracy - 0.5, base)
        return covers(paired_difference(*discordant(worse, base), images), -0.5 * flip)

    assert 0.92 <= share(holds) <= 0.99


def test_the_unpaired_interval_of_accuracy_covers_the_truth() -> None:
    """95 and 90 % right, each of 1000 images of its own: the true difference is 5 points."""

    def holds(seed: int) -> bool:
        rng = np.random.default_rng(seed)
        return covers(difference((rng.binomial(1000, 0.95), 1000), (rng.binomial(1000, 0.90), 1000)), 0.05)

    assert 0.92 <= share(holds) <= 0.98


def test_nothing_is_no_interval() -> None:
    """Without values there is no quantile and no ratio."""
    assert quantile([], 0.5) is None
    assert quantile_ratio([], [], 0.5) is None

"""Each statistic of shares against published values, and its interval against simulation."""

import math

import numpy as np
import pytest

from common.statistics import at_least, at_most, mcnemar, paired_difference, proportion


@pytest.mark.parametrize(("counts", "p"), [((0, 0), 1.0), ((1, 7), 18 / 256), ((0, 6), 2 / 64), ((5, 5), 1.0)])
def test_mcnemar_is_the_exact_binomial(counts: tuple[int, int], p: float) -> None:
    """McNemar's p is the two-sided binomial p, at most 1; thousands of disagreements do not overflow."""
    assert mcnemar(*counts) == mcnemar(*counts[::-1]) == pytest.approx(p)
    assert mcnemar(3000, 3000) == 1


def test_mcnemar_keeps_its_level() -> None:
    """If both are equally good, at most 5 % of 2,000 experiments have p below 0.05."""
    ours = np.random.default_rng(1).binomial(30, 0.5, 2000)
    assert np.mean([mcnemar(int(k), 30 - int(k)) < 0.05 for k in ours]) <= 0.05


@pytest.mark.parametrize(("successes", "trials", "low", "high"), [(81, 263, 0.2553, 0.3662), (95, 100, 0.8882, 0.9785)])
def test_wilson_interval_of_published_examples(successes: int, trials: int, low: float, high: float) -> None:
    """The intervals equal those of Newcombe, 1998, table I, method 3."""
    interval = proportion(successes, trials)
    assert (interval.low, interval.high) == (pytest.approx(low, abs=1e-4), pytest.approx(high, abs=1e-4))


@pytest.mark.parametrize("shares", [(0.01, 0.01), (0.004, 0.001), (0.03, 0.02)])
def test_the_paired_interval_covers(shares: tuple[float, float]) -> None:
    """In 2,000 experiments on 2,000 images 94 to 97.5 % of the intervals contain the true difference."""
    random = np.random.default_rng(2)
    only_a, only_b, _ = random.multinomial(2000, [*shares, 1 - sum(shares)], 2000).T
    intervals = [paired_difference(int(a), int(b), 2000) for a, b in zip(only_a, only_b, strict=True)]
    covered = np.mean([not interval.excludes(shares[0] - shares[1]) for interval in intervals])
    assert 0.94 <= covered <= 0.975


@pytest.mark.parametrize(
    ("successes", "trials", "p"), [(3, 20, 0.1), (0, 5, 0.3), (44, 300, 0.1), (5, 5, 0.5), (7, 9, 1.0)]
)
def test_binomial_tails_are_sums_of_the_binomial_formula(successes: int, trials: int, p: float) -> None:
    """Both tails equal the sum of the probabilities of each count, computed with whole binomial coefficients."""
    shares = [math.comb(trials, count) * p**count * (1 - p) ** (trials - count) for count in range(trials + 1)]
    assert at_most(successes, trials, p) == pytest.approx(sum(shares[: successes + 1]))
    assert at_least(successes, trials, p) == pytest.approx(sum(shares[successes:]))

"""Shares of successes, alone and paired, with their intervals and tests. Each function names the source of its method.

The evaluation of checkpoints and the load test both judge accuracy with it.
"""

import math
from dataclasses import dataclass
from statistics import NormalDist

Z = NormalDist().inv_cdf(0.975)
"""Half the width of a 95 % interval, in standard deviations."""


@dataclass(frozen=True)
class Interval:
    """An estimate and its 95 % interval; `low` and `high` are None if the data give no interval."""

    estimate: float
    low: float | None
    high: float | None

    def excludes(self, value: float) -> bool:
        """Return whether the data separate the estimate from `value`."""
        return self.low is not None and self.high is not None and not self.low <= value <= self.high


def proportion(successes: int, trials: int) -> Interval:
    """Return the share of successes and its interval (Wilson, 1927); at least one trial."""
    p, shrink = successes / trials, 1 + Z * Z / trials
    centre = (p + Z * Z / (2 * trials)) / shrink
    half = Z / shrink * math.sqrt(p * (1 - p) / trials + Z * Z / (4 * trials * trials))
    return Interval(p, max(0.0, centre - half), min(1.0, centre + half))


def paired_difference(only_a: int, only_b: int, trials: int) -> Interval:
    """Return the share of successes of a minus that of b on the same trials, at least one.

    Only the trials in which one of the two succeeded, `only_a` and `only_b` of them, carry information. Adjusted Wald
    interval of Bonett and Price, "Adjusted Wald confidence interval for a difference of binomial proportions based on
    paired data", 2012; recommended by Fagerland, Lydersen and Laake, 2014.
    """
    p, q = (only_a + 1) / (trials + 2), (only_b + 1) / (trials + 2)
    half = Z * math.sqrt((p + q - (p - q) ** 2) / (trials + 2))
    return Interval((only_a - only_b) / trials, max(-1.0, p - q - half), min(1.0, p - q + half))


def mcnemar(only_a: int, only_b: int) -> float:
    """Return the exact two-sided p-value that the trials where the two disagree fall evenly (McNemar, 1947)."""
    discordant = only_a + only_b
    tail: float = sum(math.comb(discordant, i) for i in range(min(only_a, only_b) + 1)) / 2**discordant
    return min(1.0, 2 * tail)


def at_most(successes: int, trials: int, p: float) -> float:
    """Return the probability of at most so many successes if each trial succeeds with probability `p` (binomial)."""
    if not 0 < p < 1:
        return 1.0 if p <= 0 or successes >= trials else 0.0
    return min(1.0, math.fsum(_exactly(count, trials, p) for count in range(successes + 1)))


def at_least(successes: int, trials: int, p: float) -> float:
    """Return the probability of at least so many successes if each trial succeeds with probability `p` (binomial)."""
    return at_most(trials - successes, trials, 1 - p)


def _exactly(count: int, trials: int, p: float) -> float:
    ways = math.lgamma(trials + 1) - math.lgamma(count + 1) - math.lgamma(trials - count + 1)
    return math.exp(ways + count * math.log(p) + (trials - count) * math.log1p(-p))

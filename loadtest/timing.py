"""The lengths of rounds, which follow from the options and from what the warm-up measured."""

from loadtest.analysis.stability import ENOUGH_ROUNDS
from loadtest.analysis.statistics import MINIMUM_ROUNDS
from loadtest.options import Options
from loadtest.plan import Timing, Workload

LONGEST_SETTLE = 5.0
"""Seconds that a round settles at most."""
REQUESTS = 2.0
"""Requests of the slowest arm that fit into a round one after the other, so that at least one is due in it."""
LONG_BLOCKS = ENOUGH_ROUNDS
"""Rounds of a continuous run, if they are not shorter than the options say."""


def timing(options: Options, workload: Workload, p50: float) -> Timing:
    """Return the rounds of a workload whose slowest arm answered half of the warm-up's requests within `p50` seconds.

    A round settles for the p50 at least: all users start together, and nobody has an answer before. It counts for
    REQUESTS times the p50 at least, and as many times the mean distance of arrivals. Longer rounds are fewer, so that
    a cell takes `options.duration`, but never fewer than an interval needs.
    """
    settle = min(LONGEST_SETTLE, max(options.settle, p50))
    gap = 1 / workload.rate if workload.rate else 0.0
    shortest = options.duration / LONG_BLOCKS if is_continuous(options, workload) else options.round
    seconds = max(options.round, shortest, REQUESTS * max(p50, gap))
    if seconds == options.round:
        return Timing(settle, seconds, options.rounds)
    return Timing(settle, seconds, max(min(options.rounds, MINIMUM_ROUNDS), round(options.duration / seconds)))


def is_continuous(options: Options, workload: Workload) -> bool:
    """Return whether the rounds of a workload follow on each other without a pause."""
    return options.continuous and workload.rate is not None

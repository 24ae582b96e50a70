"""How often the load test is right about simulated services of known speed: `python -m benchmarks.coverage`."""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from tabulate import tabulate

from benchmarks import drifting, searches, stalls
from benchmarks.apart import apart_table
from benchmarks.simulated import Server, arm, play
from loadtest.analysis.statistics import mean_ratio
from loadtest.plan import Arm, Workload
from loadtest.records import Played, rounds_of

RATIOS = (1.0, 0.98, 0.95, 0.9)
"""True throughput of the arm over that of its baseline."""
ROUNDS = 20
"""Rounds of an arm, as in a run with the default flags."""
ARM, BASELINE = arm("arm"), arm("baseline")


@dataclass(frozen=True)
class Closed:
    """A closed workload on a simulated baseline; the arm's service times are those of the baseline over the ratio."""

    name: str
    baseline: Server
    users: int


CLOSED = (
    Closed("0.6 s a request, all users at once", Server(0.6, slots=8), 8),
    Closed("0.6 s a request, all users at once", Server(0.6, slots=32), 32),
    Closed("20 ms a request, one at a time", Server(0.02), 8),
    Closed("20 ms a request, one at a time", Server(0.02), 32),
    Closed("80 ms a batch of 16", Server(0.08, batch=16), 8),
    Closed("80 ms a batch of 16", Server(0.08, batch=16), 32),
    Closed("exponential, mean 10 ms, one at a time", Server(0.01, is_exponential=True), 8),
)


@dataclass(frozen=True)
class Tally:
    """Shares of the experiments with one truth."""

    covered: float
    """The interval holds the true ratio."""
    detected: float
    """The interval lies on the true side of 1; for a true ratio of 1, on either side."""
    inverted: float
    """The interval lies on the wrong side of 1; for a true ratio of 1 it is 0."""


def throughput(workload: Closed, ratio: float, seeds: Sequence[int]) -> Tally:
    """Return how the intervals of the throughput relate to the true ratio, over one experiment per seed."""
    intervals = [interval(workload, ratio, seed) for seed in seeds]
    low, high = np.array(intervals).T
    below, above = np.mean(high < 1), np.mean(low > 1)
    return Tally(
        covered=float(np.mean((low <= ratio) & (ratio <= high))),
        detected=float(below + above if ratio == 1 else below if ratio < 1 else above),
        inverted=float(0 if ratio == 1 else above if ratio < 1 else below),
    )


def interval(workload: Closed, ratio: float, seed: int) -> tuple[float, float]:
    """Return the interval of one simulated run."""
    server = workload.baseline
    servers = {ARM: replace(server, seconds=server.seconds / ratio), BASELINE: server}
    users = Workload(concurrency=workload.users)
    played = play(servers, [users], rounds=ROUNDS, seed=seed)
    found = mean_ratio(rates(played, ARM, users), rates(played, BASELINE, users), seed=seed)
    if found is None or found.low is None or found.high is None:
        raise ValueError("a simulated run gave no interval")
    return found.low, found.high


def rates(played: Sequence[Played], of: Arm, workload: Workload) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Return the requests per second of an arm's rounds."""
    return np.array([p.answered / p.round.seconds for p in rounds_of(played, of, workload)])


def throughput_table(seeds: Sequence[int]) -> str:
    """Return the table of closed workloads: a row per workload, a column per true ratio."""
    found = [[throughput(workload, ratio, seeds) for ratio in RATIOS] for workload in CLOSED]
    rows = [
        (
            w.name,
            w.users,
            *(f"{100 * t.covered:.0f} / {100 * t.detected:.0f} / {100 * t.inverted:.0f}" for t in tallies),
        )
        for w, tallies in zip(CLOSED, found, strict=True)
    ]
    return tabulate(rows, ("service", "users", *(f"true {ratio:g}" for ratio in RATIOS)), tablefmt="pipe")


def main() -> None:
    """Print the tables that docs/compare.md quotes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    parser.add_argument("--seeds", type=int, default=400, help="experiments per number (default %(default)s)")
    seeds = range(parser.parse_args().seeds)
    print(f"Throughput in closed workloads: percent covered / detected / inverted, {len(seeds)} runs each\n")
    print(throughput_table(seeds))
    print(f"\nSearches for a service level (--slo): percent of {len(seeds)} searches, seeds 0 to {len(seeds) - 1}\n")
    print(searches.table(seeds))
    print(f"\nDrift test: percent of {len(seeds)} reports in which a cell drifted\n")
    print(drifting.table(seeds))
    print(f"\nA service that stalls for 5 s in every minute, 20 requests/s: means of {len(seeds)} runs of two arms\n")
    print(stalls.table(seeds))
    print(f"\nRuns apart (diff): percent for throughput / p50 / p95 / p99, {len(seeds)} pairs of runs each\n")
    print(apart_table(seeds))


if __name__ == "__main__":
    main()

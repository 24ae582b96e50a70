"""How often the load test is right about simulated services of known speed: `python -m benchmarks.coverage`."""

import argparse
from collections.abc import Callable, Sequence
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


@dataclass(frozen=True)
class Part:
    """One table of docs/compare.md."""

    name: str
    title: str
    """What its numbers are. `{n}` stands for the number of experiments."""
    seeds: int
    """Experiments for each number, as in docs/compare.md."""
    table: Callable[[Sequence[int]], str]


PARTS = (
    Part(
        "throughput",
        "Throughput in closed workloads: percent covered / detected / inverted, {n} runs each",
        300,
        throughput_table,
    ),
    Part("searches", "Searches for a service level (--slo): percent of {n} searches", 300, searches.table),
    Part(
        "false-alarms",
        "Drift test, constant speed: percent of {n} reports with an INVALID cell",
        300,
        drifting.false_table,
    ),
    Part("drifts", "Drift test, planted drifts: percent of {n} reports with an INVALID cell", 26, drifting.table),
    Part("long-runs", "Drift test, little changes in a long run: percent of {n} reports", 26, drifting.long_table),
    Part(
        "stalls",
        "A service that stalls for 5 s in every minute, 20 requests/s: means of {n} runs of two arms",
        100,
        stalls.table,
    ),
    Part(
        "diff", "Runs apart (diff): percent for throughput / p50 / p95 / p99, {n} pairs of runs each", 80, apart_table
    ),
)


def main() -> None:
    """Print the tables that docs/compare.md quotes."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.coverage", description=__doc__)
    names = [part.name for part in PARTS]
    parser.add_argument("parts", nargs="*", default=names, metavar="PART", help=f"of {', '.join(names)} (default: all)")
    parser.add_argument("--seeds", type=int, help="experiments per number (default: as many as docs/compare.md quotes)")
    flags = parser.parse_args()
    if unknown := set(flags.parts) - set(names):
        parser.error(f"no such part: {', '.join(sorted(unknown))}")
    for part in PARTS:
        if part.name in flags.parts:
            seeds = range(flags.seeds or part.seeds)
            print(
                f"{part.title.format(n=len(seeds))}, seeds 0 to {len(seeds) - 1}\n\n{part.table(seeds)}\n", flush=True
            )


if __name__ == "__main__":
    main()

"""How often `diff` is right about simulated runs that were apart in time; benchmarks/coverage.py prints the table."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks.simulated import Server, arm, play
from common.statistics import Interval
from loadtest.analysis.apart import mean_ratio, quantile_ratio
from loadtest.analysis.statistics import t_quantile
from loadtest.plan import Workload
from loadtest.records import Played
from loadtest.report.cells import QUANTILES

ARM = arm("arm")
ROUNDS = 20
SLOWER = 1.1
"""Service times of the run that is truly slower, over those of the other one."""
DRIFTS = (0.0, 0.0017, 0.05)
"""Steps of the machine's pace from round to round. With the second, about a third of identical runs differ if intervals
take rounds as independent."""
SERVICES = {
    "20 ms a request, 8 users": (Server(0.02), Workload(concurrency=8)),
    "80 ms a batch of 16, 32 users": (Server(0.08, batch=16), Workload(concurrency=32)),
    "exponential, mean 10 ms, 8 users": (Server(0.01, is_exponential=True), Workload(concurrency=8)),
}
HEADERS = ("service", "drift a round", "rounds as independent", "identical runs differ", "1.1 x is detected")


def run(server: Server, workload: Workload, drift: float, seed: int) -> list[Played]:
    """Return one simulated run."""
    return play({ARM: server}, [workload], rounds=ROUNDS, seed=seed, drift=drift)


def rates(played: Sequence[Played]) -> NDArray[np.float64]:
    """Return the requests per second of each round."""
    return np.array([p.answered / p.round.seconds for p in played])


def intervals(a: Sequence[Played], b: Sequence[Played]) -> list[Interval | None]:
    """Return the ratio of the throughput, then those of p50, p95 and p99."""
    latencies = [[np.array([r.latency for r in p.counted]) for p in side] for side in (a, b)]
    return [
        mean_ratio(rates(a), rates(b)),
        *(quantile_ratio(latencies[0], latencies[1], q) for q in QUANTILES.values()),
    ]


def differs_as_independent(a: Sequence[Played], b: Sequence[Played]) -> bool:
    """Return whether the throughputs differ by Student's t interval over rounds, as if these were independent."""
    sides = [np.log(rates(side)) for side in (a, b)]
    error = np.sqrt(sum(side.var(ddof=1) / len(side) for side in sides))
    return bool(abs(sides[0].mean() - sides[1].mean()) > t_quantile(0.975, 2 * ROUNDS - 2) * error)


def shares(hits: Sequence[Sequence[bool]]) -> str:
    """Return the percentage of each column, such as `3 / 2 / 0 / 1`."""
    return " / ".join(f"{100 * share:.0f}" for share in np.mean(hits, axis=0))


def row(name: str, drift: float, seeds: Sequence[int]) -> tuple[str, ...]:
    """Return the results of one service under one drift: percentages of throughput, p50, p95 and p99."""
    server, workload = SERVICES[name]
    slow = replace(server, seconds=SLOWER * server.seconds)
    sides = (server, server, slow)
    first, again, slower = ([run(s, workload, drift, 3 * n + i) for n in seeds] for i, s in enumerate(sides))
    naive = np.mean([differs_as_independent(a, b) for a, b in zip(first, again, strict=True)])
    false = [[bool(i and i.excludes(1.0)) for i in intervals(a, b)] for a, b in zip(first, again, strict=True)]
    found = [
        [bool(i and i.excludes(1.0) and (i.estimate > 1) == (n > 0)) for n, i in enumerate(intervals(a, b))]
        for a, b in zip(slower, first, strict=True)
    ]
    return name, f"{100 * drift:g} %", f"{100 * naive:.0f}", shares(false), shares(found)


def apart_table(seeds: Sequence[int]) -> str:
    """Return the table of runs that were apart: a row per service and drift."""
    rows = [row(name, drift, seeds) for name in SERVICES for drift in DRIFTS]
    return tabulate(rows, HEADERS, tablefmt="pipe", disable_numparse=True)

"""How often the drift test is right about whole reports on simulated services: a part of `benchmarks.coverage`."""

from collections.abc import Sequence
from dataclasses import dataclass

from tabulate import tabulate

from benchmarks.simulated import CONSTANT, DRIFT, Change, Server, arm, play
from loadtest.analysis.stability import SMALL, Drift, drifts
from loadtest.plan import Workload

ROUNDS = 20
"""Rounds of each cell, as in a run with the default flags."""


@dataclass(frozen=True)
class Simulated:
    """The arms and workloads of a report. All arms but the first are compared with the first one."""

    name: str
    servers: tuple[Server, ...]
    workloads: tuple[Workload, ...]
    drift: float = DRIFT
    """Standard deviation of the step of the machine's pace from block to block."""
    rounds: int = ROUNDS


OPEN = tuple(Workload(rate=100 * load) for load in (0.5, 0.8, 0.9))
CLOSED = (Workload(concurrency=1), Workload(concurrency=8))
FIXED, RANDOM = Server(0.01), Server(0.01, is_exponential=True)
BATCHES = tuple(Server(seconds, batch=16) for seconds in (0.08, 0.088, 0.1))
BATCHED = Simulated("batches of 16 in 80, 88 and 100 ms; 1 and 8 users", BATCHES, CLOSED)
ALL = (
    BATCHED,
    Simulated("the same on a steady machine", BATCHES, CLOSED, 0.0),
    Simulated("3 x M/M/1, 10 ms; 1 and 8 users", (RANDOM,) * 3, CLOSED),
    Simulated("3 x M/D/1, 10 ms; 50, 80 and 90 requests/s", (FIXED,) * 3, OPEN),
    Simulated("the same on a steady machine", (FIXED,) * 3, OPEN, 0.0),
    Simulated("3 x M/M/1, 10 ms; 50, 80 and 90 requests/s", (RANDOM,) * 3, OPEN),
    Simulated("3 x batches of 16 in 80 ms; 50, 80 and 90 requests/s", BATCHES[:1] * 3, OPEN),
    Simulated("one arm alone, M/M/1, 10 ms; 50, 80 and 90 requests/s; steady machine", (RANDOM,), OPEN, 0.0),
    Simulated("one arm alone, batches of 16 in 80 ms; 1 and 8 users; steady machine", BATCHES[:1], CLOSED, 0.0),
)
CHANGES = {
    "10 % slower over the run": Change(1.1),
    "20 % slower over the run": Change(1.2),
    "20 % slower in the last third": Change(1.2, is_gradual=False),
    "50 % slower over the run": Change(1.5),
}
"""Changes of the last arm."""
LONG = Simulated("batches of 16 in 80, 88 and 100 ms; 8 users; 200 rounds", BATCHES, CLOSED[1:], 0.0, 200)
LITTLE = {
    "constant speed": CONSTANT,
    "2 % slower over the run": Change(1.02),
    "4 % slower over the run": Change(1.04),
    "10 % slower over the run": Change(1.1),
}
"""Changes of the last arm of a long run. The thirds of the rounds lie a third of a change from the mean."""


def alarms(report: Simulated, change: Change, seeds: Sequence[int]) -> float:
    """Return the share of the reports, one for each seed, in which a cell drifted so much that it is INVALID."""
    return sum(not all(drift.is_small for drift in found(report, change, seed)) for seed in seeds) / len(seeds)


def found(report: Simulated, change: Change, seed: int) -> list[Drift]:
    """Return the drifts in one simulated report, small ones included."""
    servers = {arm(f"arm {number}"): server for number, server in enumerate(report.servers)}
    changes = {list(servers)[-1]: change}
    played = play(servers, report.workloads, rounds=report.rounds, seed=seed, drift=report.drift, changes=changes)
    return drifts(list(servers), report.workloads, played)


def false_table(seeds: Sequence[int]) -> str:
    """Return the table of false alarms: a row for each kind of report."""
    rows = [(report.name, f"{100 * alarms(report, CONSTANT, seeds):.1f}") for report in ALL]
    return tabulate(rows, ("report", "constant speed"), tablefmt="pipe", disable_numparse=True)


def table(seeds: Sequence[int]) -> str:
    """Return the table of drifts that were planted: a row for each kind of report, a column for each change."""
    rows = [(r.name, *(f"{100 * alarms(r, change, seeds):.0f}" for change in CHANGES.values())) for r in ALL]
    return tabulate(rows, ("report", *CHANGES), tablefmt="pipe", disable_numparse=True)


def long_table(seeds: Sequence[int]) -> str:
    """Return the table of little changes in a long run: how many reports name a drift, and how many are INVALID."""
    rows = []
    for name, change in LITTLE.items():
        reports = [found(LONG, change, seed) for seed in seeds]
        named = sum(bool(report) for report in reports) / len(reports)
        invalid = sum(not all(drift.is_small for drift in report) for report in reports) / len(reports)
        rows.append((name, f"{100 * named:.0f}", f"{100 * invalid:.0f}"))
    headers = (f"change, {LONG.name}", "a drift is named", f"a cell is INVALID ({100 * SMALL:.0f} % or more)")
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)

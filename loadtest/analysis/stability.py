"""The stability of a cell's rounds. A cell is one arm under one workload."""

from collections.abc import Sequence

from loadtest.analysis.statistics import enough, quantile
from loadtest.plan import Arm, Workload
from loadtest.records import Played, rounds_of

PARTS = 3
SATURATED = 0.95
"""Share of the due requests: an arm that answers fewer in time cannot hold an open workload."""
TAIL = 2.0
"""Factor on the tolerance for latencies: the p99 of some hundred requests moves that much by chance."""


def unstable(
    arms: Sequence[Arm], workloads: Sequence[Workload], played: Sequence[Played], tolerance: float
) -> list[str]:
    """Return a sentence for each cell whose rounds are not stable."""
    cells = [(arm, workload) for workload in workloads for arm in arms]
    moved = [(arm, workload, drift(rounds_of(played, arm, workload), tolerance)) for arm, workload in cells]
    return [f"{arm.name}, {workload.name}: {reason}" for arm, workload, reason in moved if reason]


def drift(rounds: Sequence[Played], tolerance: float) -> str | None:
    """Return what moved by more than the tolerance between the thirds of the rounds; None if they are stable.

    NVIDIA's perf_analyzer applies the same rule to its last three windows: throughput and latency within 10 % of their
    mean. The latency is the highest of p99, p95 and p50 that every third has enough requests for. Fewer than three
    rounds never count as unstable.
    """
    size = len(rounds) // PARTS
    if not size:
        return None
    parts = [rounds[-size * (PARTS - i) : len(rounds) - size * (PARTS - 1 - i)] for i in range(PARTS)]
    rates = [sum(p.answered for p in part) / sum(p.round.seconds for p in part) for part in parts]
    if (moved := largest_deviation(rates)) > tolerance:
        return f"throughput moved by {moved:.0%} between thirds of the rounds ({listed(rates)} requests/s)"
    return None if saturated(rounds) else _tail_drift(parts, TAIL * tolerance)


def _tail_drift(parts: Sequence[Sequence[Played]], tolerance: float) -> str | None:
    latencies = [[r.latency for p in part for r in p.counted if not r.error] for part in parts]
    q = next((q for q in (0.99, 0.95, 0.5) if min(map(len, latencies)) >= enough(q)), None)
    tails = [1000 * (quantile(part, q) or 0.0) for part in latencies] if q else []
    if (moved := largest_deviation(tails)) <= tolerance:
        return None
    return f"p{100 * (q or 0):.0f} moved by {moved:.0%} between thirds of the rounds ({listed(tails)} ms)"


def saturated(rounds: Sequence[Played]) -> bool:
    """Return whether an open workload is more than the arm can hold: then latencies grow as long as a round lasts."""
    due, finished = sum(len(p.counted) for p in rounds), sum(p.answered for p in rounds)
    return rounds[0].round.workload.rate is not None and finished < SATURATED * due


def largest_deviation(values: Sequence[float]) -> float:
    """Return the largest distance from the mean, as a share of the mean; 0 without values."""
    mean = sum(values) / len(values) if values else 0.0
    return max(abs(value / mean - 1) for value in values) if mean else 0.0


def listed(values: Sequence[float]) -> str:
    """Return the values as text, such as `81.2, 80.1, 92.0`."""
    return ", ".join(f"{value:.1f}" for value in values)

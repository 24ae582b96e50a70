"""Whether the rounds of a cell have come to rest."""

from collections.abc import Sequence

from loadtest.analysis.statistics import enough, quantile
from loadtest.records import Played

PARTS = 3
SATURATED = 0.95
"""Share of the due requests below which an open workload is more than the arm can hold."""
TAIL = 2.0
"""How much more of the tolerance the tail may use: a p99 of some hundred requests moves that much by chance."""


def drift(rounds: Sequence[Played], tolerance: float) -> str | None:
    """What moved between the first, second and last third of the rounds by more than the tolerance; None when stable.

    NVIDIA's perf_analyzer asks the same of its last three windows: throughput and latency within 10 % of their mean.
    The latency is the highest of p99, p95 and p50 that a third has enough requests for. Fewer than three rounds
    are never called unstable: they cannot show it.
    """
    size = len(rounds) // PARTS
    if not size:
        return None
    parts = [rounds[-size * (PARTS - i) : len(rounds) - size * (PARTS - 1 - i)] for i in range(PARTS)]
    rates = [sum(len(p.finished) for p in part) / sum(p.round.seconds for p in part) for part in parts]
    latencies = [[r.latency for p in part for r in p.counted if not r.error] for part in parts]
    if (moved := spread(rates)) > tolerance:
        return f"throughput moved by {moved:.0%} between thirds of the rounds ({listed(rates)} requests/s)"
    q = next((q for q in (0.99, 0.95, 0.5) if min(map(len, latencies)) >= enough(q)), None)
    tails = [1000 * (quantile(part, q) or 0.0) for part in latencies] if q else []
    if saturated(rounds):
        return None
    if (moved := spread(tails)) > TAIL * tolerance:
        return f"p{100 * (q or 0):.0f} moved by {moved:.0%} between thirds of the rounds ({listed(tails)} ms)"
    return None


def saturated(rounds: Sequence[Played]) -> bool:
    """Whether an open workload is more than the arm can hold: then latencies grow as long as a round lasts."""
    due, finished = (sum(len(getattr(p, part)) for p in rounds) for part in ("counted", "finished"))
    return rounds[0].round.workload.rate is not None and finished < SATURATED * due


def spread(values: Sequence[float]) -> float:
    """The largest distance from the mean, as a share of the mean."""
    mean = sum(values) / len(values) if values else 0.0
    return max(abs(value / mean - 1) for value in values) if mean else 0.0


def listed(values: Sequence[float]) -> str:
    """`81.2, 80.1, 92.0`"""
    return ", ".join(f"{value:.1f}" for value in values)

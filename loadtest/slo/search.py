"""The search for the highest load that holds a service level: halving, then proof by longer runs."""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from loadtest.analysis.statistics import enough
from loadtest.slo.level import Found, Slo, Trial

STEPS = 6
"""Halvings of the searched range, which narrow it to 1/64."""
CONFIRMATIONS = 7
"""Confirming runs of one search at most."""
BACK = 0.9
"""The factor of one step back, after a confirming run failed."""
SINGLE_STEPS = 3
"""Failed confirming runs that each cost one step back; each later failure costs twice as many as the one before."""
CONFIDENCE = 1 - 0.01 / CONFIRMATIONS
"""Confidence of one confirming run, so that all runs of a search together are wrong once in 100 searches at most."""
Searching = Generator[None, None, Found]
"""A search that yields after each run and returns its result."""


@dataclass(frozen=True)
class Probe:
    """The result of one run under one load: of `requests`, `over` failed or took longer than the level allows."""

    requests: int
    over: int
    is_limited: bool = False
    """True if the load generator was too busy or too late, so that it may have caused the slow requests."""

    def holds(self, slo: Slo) -> bool:
        """Return whether this run kept the level."""
        return self.requests > 0 and self.over <= (1 - slo.q) * self.requests

    def proves(self, slo: Slo) -> bool:
        """Return whether this run proves with CONFIDENCE that the load keeps the level.

        A service that misses the level by a hair shows so few requests over the time with probability
        1 - CONFIDENCE at most. The rule is MLPerf's early stopping; with none over, a p99 takes 652 requests.
        """
        return self.requests > 0 and binomial(self.over, self.requests, 1 - slo.q) <= 1 - CONFIDENCE


def search(slo: Slo, ceiling: float, probe: Callable[[float, float], Probe], *, whole: bool = False) -> Searching:
    """Search for the highest load up to `ceiling` that holds `slo`.

    Short runs halve the range. A longer run then has to prove the load; after a failure the search steps back.
    The generator yields after each run, so that several searches can take turns.

    Args:
        slo: the service level.
        ceiling: a load that is too high.
        probe: plays a load until about the given number of requests was due.
        whole: loads are whole numbers (users).
    """
    tried: list[Trial] = []

    def run(load: float, requests: float, *, proof: bool) -> Generator[None, None, bool]:
        result = probe(load, requests)
        good = result.proves(slo) if proof else result.holds(slo)
        tried.append(Trial(load, result.requests, result.over, proof, good, result.is_limited))
        yield
        return good

    *_, trial, confirming = sizes(slo)
    low, high = 0.0, ceiling
    for _ in range(STEPS):
        middle = rounded((low + high) / 2, whole)
        if not low < middle < high:
            break
        low, high = (middle, high) if (yield from run(middle, trial, proof=False)) else (low, middle)
    load = low
    for failures in range(1, CONFIRMATIONS + 1):
        if load <= 0 or (yield from run(load, confirming, proof=True)):
            break
        less = rounded(load * BACK ** max(1, 2 ** (failures - SINGLE_STEPS)), whole)
        load = less if less < load else 0.0
    else:
        load = 0.0
    return Found(load or None, bound(tried), tuple(tried))


def bound(tried: Sequence[Trial]) -> str:
    """Return why the arm may hold a higher load than the search found; empty if the arm itself was the limit."""
    if all(trial.held for trial in tried):
        return "no higher load was tried"
    if any(trial.limited and not trial.held for trial in tried):
        return "the load generator was too slow for a higher one"
    return ""


def sizes(slo: Slo) -> list[float]:
    """Return the requests of each run of a search whose first confirming run succeeds."""
    return [enough(slo.q) / 3] * STEPS + [3.0 * enough(slo.q)]


def rounded(load: float, whole: bool) -> float:
    """Return a load that can be played: a whole number of users, or a rate of three digits."""
    return float(math.floor(load)) if whole else float(f"{load:.3g}")


def binomial(k: int, n: int, p: float) -> float:
    """Return the probability of at most `k` successes in `n` trials that succeed with probability `p` each."""
    terms = (
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(min(k, n) + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))

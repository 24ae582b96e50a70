"""The search for the highest load that holds a service level: halving, then runs around the limit until it is known.

It only decides. A `probe` plays the runs, against a service or in virtual time.
"""

import math
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

from loadtest.analysis.statistics import enough
from loadtest.slo.fit import Limit, limit
from loadtest.slo.level import Found, Slo, Trial

HALVINGS = 6
"""Short runs that halve the searched range, which narrow it to 1/64."""
LEAST_RUNS, MOST_RUNS = 12, 30
"""Runs around the limit: fewer tell too little about their own spread, and more take too long."""
TYPICAL_RUNS = 20
"""Runs around the limit in a search of median length: 16 to 28 on the queues of `benchmarks.searches`."""
OVER_PER_RUN = 20
"""Requests over the level that one run at the limit has on average. A run needs several busy periods."""
PRECISE = 1.06
"""Estimate over the safe load at which the search ends."""
OFFSETS = (0.0, 0.1, -0.1)
"""Distances of the runs from the estimate, in the logarithm of the load: two loads are needed to see a slope."""
MOVE = 0.3
"""Change of the estimate from run to run at most, in the logarithm of the load."""
TOUCHED = 0.99
"""Share of the ceiling from which a run counts as one at the ceiling."""
RAISE = 1.3
"""Factor on the ceiling after a run at the ceiling held."""
LESS = 0.9
"""Share of a load that the load generator could not send at which it is tried again."""
LEAST_SHARE = 1 / 200
"""Share of the ceiling below which no load is tried."""
Searching = Generator[None, None, Found]
"""A search that yields after each run and returns its result."""


@dataclass(frozen=True)
class Probe:
    """The result of one run under one load: of `requests`, `over` failed or took longer than the level allows."""

    requests: int
    over: int
    is_limited: bool = False
    """True if the load generator did not put the load on the service, so that the run says nothing about it."""


def search(slo: Slo, ceiling: float, probe: Callable[[float, float], Probe], *, whole: bool = False) -> Searching:
    """Search for the highest load up to `ceiling` that holds `slo`.

    The search yields after each run, so that several searches can take turns.

    Args:
        slo: the service level.
        ceiling: the highest load that is tried.
        probe: plays a load until about the given number of requests was due.
        whole: loads are whole numbers (users).
    """
    return _Search(slo, ceiling, probe, whole).runs()


class _Search:
    """The state of one search."""

    def __init__(self, slo: Slo, ceiling: float, probe: Callable[[float, float], Probe], whole: bool) -> None:
        self._slo, self._ceiling, self._probe, self._whole = slo, ceiling, probe, whole
        self._tried: list[Trial] = []

    def runs(self) -> Searching:
        """Halve the range of loads, then play runs around the estimated limit until its interval is narrow."""
        estimate = yield from self._halve()
        if not estimate:
            return Found(None, None, "", tuple(self._tried))
        for number in range(MOST_RUNS):
            trial = yield from self._run(self._beside(estimate, OFFSETS[number % len(OFFSETS)]), per_run(self._slo))
            self._raise_ceiling(trial)
            found = limit(self._sound, self._slo, estimate)
            if found is None:
                continue
            estimate = min(
                self._ceiling, max(found.interval.estimate, estimate / math.exp(MOVE)), estimate * math.exp(MOVE)
            )
            if estimate < self._ceiling * LEAST_SHARE:
                return Found(None, None, "", tuple(self._tried))
            if number + 1 >= LEAST_RUNS and self._is_known(found):
                break
        return result(self._tried, limit(self._sound, self._slo, estimate), whole=self._whole)

    @property
    def _limited(self) -> list[float]:
        return [trial.load for trial in self._tried if trial.limited]

    @property
    def _sound(self) -> list[Trial]:
        return [trial for trial in self._tried if not trial.limited]

    def _raise_ceiling(self, trial: Trial) -> None:
        """Allow higher rates if the highest one held: the ceiling is only what few users were answered at most."""
        if trial.held and trial.load >= TOUCHED * self._ceiling and not (self._whole or self._limited):
            self._ceiling *= RAISE

    def _is_known(self, found: Limit) -> bool:
        top = max(trial.load for trial in self._sound)
        return min(found.interval.estimate, top) <= PRECISE * min(found.safe or 0.0, top)

    def _halve(self) -> Generator[None, None, float]:
        """Return the highest load that held in short runs; 0 if none did."""
        low, high = 0.0, self._ceiling
        for _ in range(HALVINGS):
            middle = self._rounded((low + high) / 2)
            if not low < middle < high:
                break
            trial = yield from self._run(middle, enough(self._slo.q) / 3)
            low, high = (middle, high) if trial.held and not trial.limited else (low, middle)
        return low

    def _run(self, load: float, requests: float) -> Generator[None, None, Trial]:
        trial = judged(self._slo, load, self._probe(load, requests))
        self._tried.append(trial)
        if trial.limited:
            self._ceiling = min(self._ceiling, load)
        yield
        return trial

    def _beside(self, estimate: float, offset: float) -> float:
        """Return a load that can be played, at a distance from the estimate."""
        most = LESS * min(self._limited) if self._limited else self._ceiling
        load = min(most, estimate * math.exp(offset))
        return max(1.0, self._rounded(load + (0.999 if offset > 0 else 0.5))) if self._whole else self._rounded(load)

    def _rounded(self, load: float) -> float:
        return float(math.floor(load)) if self._whole else float(f"{load:.3g}")


def judged(slo: Slo, load: float, seen: Probe) -> Trial:
    """Return a run with what it says about the service level."""
    held = seen.requests > 0 and seen.over <= (1 - slo.q) * seen.requests
    return Trial(load, seen.requests, seen.over, held, seen.is_limited)


def result(tried: Sequence[Trial], found: Limit | None, *, whole: bool) -> Found:
    """Return the result that the runs support, but no higher load than was tried."""
    if found is None or not found.safe:
        return Found(None, found.interval if found else None, "", tuple(tried))
    top = max(trial.load for trial in tried if not trial.limited)
    bound = ""
    if found.safe >= top or found.interval.estimate > top:
        is_limited = any(trial.limited for trial in tried)
        bound = "the load generator was too slow for a higher one" if is_limited else "no higher load was tried"
    load = min(found.safe, top)
    load = float(math.floor(load + 1e-9)) if whole else floored(load)
    return Found(load or None, found.interval, bound, tuple(tried))


def floored(load: float) -> float:
    """Return the largest number of three digits that is no larger than a load."""
    unit = 10.0 ** (math.floor(math.log10(load)) - 2)
    return float(f"{math.floor(load / unit + 1e-9) * unit:.3g}")


def per_run(slo: Slo) -> float:
    """Return the requests of one run around the limit."""
    return OVER_PER_RUN / (1 - slo.q)


def sizes(slo: Slo) -> list[float]:
    """Return the requests of each run of a typical search."""
    return [enough(slo.q) / 3] * HALVINGS + [per_run(slo)] * TYPICAL_RUNS

"""A service level, and the result of the search for the highest load that keeps it."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass

from common.statistics import Interval
from loadtest.analysis.words import times

NEXT = "To prove a load, play longer runs (--round 10), use a quieter machine or give a looser limit"
"""The advice if some runs held the level and no load is shown to."""
LOOSER = "Give a looser limit"
TERM = re.compile(r"p(\d{2}(?:\.\d+)?)=(\d+(?:\.\d+)?)(ms|s)")


@dataclass(frozen=True)
class Slo:
    """A service level such as `p99=20ms`: at least the share `q` of the requests is answered within `seconds`."""

    name: str
    q: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.name} <= {1000 * self.seconds:g} ms"


@dataclass(frozen=True)
class Trial:
    """One run of a search under one load."""

    load: float
    requests: int
    over: int
    """Requests that failed or took longer than the service level allows."""
    held: bool
    """True if no more requests than allowed were over."""
    limited: bool
    """True if the load generator did not put the load on the service: the run says nothing about the service."""


@dataclass(frozen=True)
class Found:
    """The result of one search."""

    load: float | None
    """The highest load that is stated to hold the level; None if no load was shown to. It is above the true limit in at
    most a tenth of the searches."""
    limit: Interval | None
    """The load at which the level is just held, with its 95 % interval; None if it is not known."""
    bound: str
    """Why the arm may hold a higher load than was tried; empty if the arm itself was the limit."""
    tried: tuple[Trial, ...]


@dataclass(frozen=True)
class Level:
    """The highest load under which one arm keeps the service level."""

    arm: str
    slo: str
    unit: str
    """Unit of the loads: `requests/s` or `users`."""
    capacity: float
    """Requests per second that the arm answers at most, measured before the search."""
    found: Found

    @property
    def limited(self) -> str:
        """Why the load generator was the limit; empty if it was not.

        The generator is not to blame if the search found a limit, or if no load is shown to hold the level and runs
        that were sent in time were too slow.
        """
        unsent = [trial.load for trial in self.found.tried if trial.limited]
        blamed = self.found.bound if self.found.load else not self._slow
        if not (unsent and blamed):
            return ""
        return f"it could not put {min(unsent):g} {self.unit} on the service in time: give more --users"

    def sentence(self) -> str:
        """Return the result as one sentence, or as a few if no load is shown to hold the level."""
        found, limit = self.found, self.found.limit
        if found.load is None or limit is None:
            why = f"generator limited: {self.limited}" if self.limited else self._unproven()
            because = "; ".join(part for part in (found.bound, why) if part)
            return f"{self.arm} is not shown to hold {self.slo} under any load: {because}"
        if found.bound:
            return f"{self.arm} holds {self.slo} at least up to {found.load:g} {self.unit} ({found.bound})"
        requests = sum(trial.requests for trial in found.tried if not trial.limited)
        return f"{self.arm} holds {self.slo} up to {found.load:g} {self.unit} ({self._limit}, {requests:,} requests)"

    @property
    def _slow(self) -> list[float]:
        """The loads of the runs that were sent in time and did not hold the level."""
        return [trial.load for trial in self.found.tried if not (trial.held or trial.limited)]

    @property
    def _held(self) -> list[float]:
        """The loads of the runs that held the level."""
        return [trial.load for trial in self.found.tried if trial.held and not trial.limited]

    @property
    def _limit(self) -> str:
        """The estimate of the limit with its interval, or without one if the runs show none; empty if unknown."""
        limit, loads = self.found.limit, self._slow + self._held
        if limit is None:
            return ""
        if limit.low is not None and limit.high is not None:
            return f"limit {limit.estimate:.3g} [{limit.low:.3g}, {limit.high:.3g}]"
        is_inside = min(loads) <= limit.estimate <= max(loads)
        return f"limit about {limit.estimate:.3g}, too uncertain for an interval" if is_inside else ""

    def _unproven(self) -> str:
        """Return what the runs showed, and what to do, if they prove no load."""
        slow, held = self._slow, self._held
        if not slow and not held:
            return "no run was played"
        if not slow:
            return f"all {len(held)} runs held it, at {self._span(held)}"
        said = f"{len(slow)} of {len(slow) + len(held)} runs were too slow, at {self._span(slow)}"
        advice = "" if self.found.bound else f". {NEXT if held else LOOSER}"
        if not held:
            return said + advice
        steady = [load for load in held if load < min(slow)]
        estimates = [f"every run up to {max(steady):g} {self.unit} held it"] if steady else []
        estimates += [self._limit] if self._limit else []
        found = f". Estimate, not proven: {'; '.join(estimates)}" if estimates else ""
        return f"{said}, and the others held it, at {self._span(held)}{found}{advice}"

    def _span(self, loads: Sequence[float]) -> str:
        """Return the range of loads in words."""
        low, high = min(loads), max(loads)
        return f"{low:g} {self.unit}" if low == high else f"{low:g} to {high:g} {self.unit}"


@dataclass(frozen=True)
class LevelRatio:
    """The limit of an arm over that of its baseline."""

    arm: str
    baseline: str
    slo: str
    unit: str
    ratio: Interval
    """Without ends if one of the limits has none."""

    def sentence(self) -> str:
        """Return the ratio as a sentence."""
        return f"{self.arm} holds {times(self.ratio)} as many {self.unit} as {self.baseline}"


def ratio(level: Level, baseline: Level) -> LevelRatio | None:
    """Return the ratio of two limits, with its 95 % interval; None unless both arms hold a load and were the limit.

    The interval follows from those of the two limits, on a logarithmic scale: MOVER (Zou and Donner, "Construction of
    confidence limits about effect measures: a general approach", 2008). The arms took turns, so a slow minute hit both;
    the interval treats them as independent, which makes it too wide if anything.
    """
    ours, theirs = level.found.limit, baseline.found.limit
    if ours is None or theirs is None or not all(one.found.load and not one.found.bound for one in (level, baseline)):
        return None
    estimate = ours.estimate / theirs.estimate
    low = high = None
    if ours.low and ours.high and theirs.low and theirs.high:
        below, above = math.log(ours.estimate / ours.low), math.log(ours.high / ours.estimate)
        down, up = math.log(theirs.estimate / theirs.low), math.log(theirs.high / theirs.estimate)
        low, high = estimate * math.exp(-math.hypot(below, up)), estimate * math.exp(math.hypot(above, down))
    return LevelRatio(level.arm, baseline.arm, level.slo, level.unit, Interval(estimate, low, high))


def parse(text: str) -> Slo:
    """Return the service level that a text such as `p99=20ms` or `p99.9=0.5s` states.

    Raises:
        ValueError: the text has another form.
    """
    if not (match := TERM.fullmatch(text.strip())):
        raise ValueError(f"expected something like p99=20ms, got {text}")
    return Slo(f"p{match[1]}", float(match[1]) / 100, float(match[2]) / (1000 if match[3] == "ms" else 1))

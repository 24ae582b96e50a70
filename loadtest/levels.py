"""Plays the search for the highest load within a service level against a running service."""

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from loadtest.analysis.statistics import quantile
from loadtest.analysis.validity import BUSY, LATE, LATE_SECONDS
from loadtest.options import Options
from loadtest.plan import Arm, Round, Workload
from loadtest.progress import Progress
from loadtest.slo import Probe, Searching, Slo, search, sizes

if TYPE_CHECKING:  # they bring gevent, which patches the process that imports it
    from loadtest.client.generator import Generator
    from loadtest.fleet import Fleet

SHORTEST, LONGEST = 2.0, 120.0
"""Seconds of one run of the search."""
CAPACITY_SECONDS = 3.0


class Stopped(Exception):
    """The user does not want to wait for the rest of the search."""


class Search:
    """The search for one service level; `check` may raise Stopped between two runs."""

    def __init__(
        self, options: Options, generator: "Generator | Fleet", progress: Progress, check: Callable[[], None]
    ) -> None:
        self._options, self._generator, self._progress, self._check = options, generator, progress, check
        self._runs = 0

    def levels(self, slo: Slo, arms: Sequence[Arm]) -> Iterator[dict[str, Any]]:
        """The highest load of each arm that holds `slo`, as soon as it is found.

        The arms take turns, so that a slow minute hits them all.

        Raises:
            Stopped: the user has had enough.
        """
        searching = [self._level(slo, arm) for arm in arms]
        while searching:
            for level in list(searching):
                try:
                    next(level)
                except StopIteration as end:
                    searching.remove(level)
                    yield end.value

    def _level(self, slo: Slo, arm: Arm) -> Searching:
        is_rate = self._options.slo_load == "rate"
        per_second = capacity(self._options, arm, self._generator)
        self._progress.extend(sum(lasting(n, 0.7 * per_second) for n in sizes(slo)) / self._options.round)

        def probe(load: float, requests: float) -> Probe:
            seconds = lasting(requests, load if is_rate else per_second)
            workload = Workload(rate=load) if is_rate else Workload(concurrency=round(load))
            return self._probe(slo, arm, workload, seconds)

        ceiling = 1.1 * per_second if is_rate else self._options.users + 1.0
        found = yield from search(slo, ceiling, probe, whole=not is_rate)
        unit = "requests/s" if is_rate else "users"
        return {"arm": arm.name, "slo": str(slo), "unit": unit, "capacity": per_second, **found}

    def _probe(self, slo: Slo, arm: Arm, workload: Workload, seconds: float) -> Probe:
        self._check()
        options = self._options
        self._runs += 1  # arrivals of its own for each: a run that confirms must not replay the one that chose
        planned = Round((arm,), workload, 0, options.settle, seconds, options.seed + self._runs)
        stretch, cpu = self._generator.play(planned)
        late = quantile(stretch.lateness, 0.9) or 0.0
        counted = [r for r in stretch.requests[arm.name] if stretch.opened <= r.intended < stretch.closed]
        over = sum(bool(r.error) or r.latency > slo.seconds for r in counted)
        text = f"{slo}, {arm.name}, {workload.name}: {over} of {len(counted)} requests over"
        self._progress.step(text, seconds / options.round)
        return Probe(len(counted), over, cpu > BUSY or late > max(LATE_SECONDS, LATE * slo.seconds))


def lasting(requests: float, rate: float) -> float:
    """Seconds in which so many requests are due, within SHORTEST and LONGEST."""
    return min(LONGEST, max(SHORTEST, requests / rate))


def capacity(options: Options, arm: Arm, generator: "Generator | Fleet") -> float:
    """Requests a second that the arm answers at most: what many users without think time get out of it."""
    busy = Workload(concurrency=min(32, options.users))
    stretch, _ = generator.play(Round((arm,), busy, 0, 0.5, CAPACITY_SECONDS, options.seed))
    finished = [r for r in stretch.requests[arm.name] if stretch.opened <= r.end < stretch.closed and not r.error]
    return max(1.0, len(finished) / CAPACITY_SECONDS)

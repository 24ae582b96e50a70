"""The searches of several arms for a service level, played in turns against running services."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from loadtest.analysis.validity import BUSY
from loadtest.client.scrape import Scrape
from loadtest.options import Options
from loadtest.plan import Arm, Round, Workload
from loadtest.progress import Progress
from loadtest.records import NEVER_SENT, Played, Player, Stretch
from loadtest.slo.level import Level, Slo
from loadtest.slo.search import Probe, Searching, judged, search, sizes
from loadtest.slo.stopped import Searched

SHORTEST, LONGEST = 2.0, 120.0
"""Limits in seconds of one run of the search. A longer `--round` raises both."""
CAPACITY_SECONDS = 3.0
"""Counted seconds of the run that measures an arm's capacity."""
CAPACITY_SETTLE = 0.5
"""Seconds at the start of that run that do not count."""
SETTLE_SHARE = 0.15
"""Seconds that do not count at the start of a run, as a share of the counted ones."""
CAPACITY_USERS = 32
"""Users without think time in that run."""
PEAK_SHARE = 0.7
"""Guess of the found rate as a share of the capacity, for the estimate of the time left."""
WORK_PER_LEVEL = 20
"""Guess of the seconds of a level over those that one request costs the service. It is used until the warm-up has
counted requests. On the queues of `benchmarks.searches` it is 10, 20 and 40."""


class Stopped(Exception):
    """The user stopped the run."""


@dataclass(frozen=True)
class _Turns:
    """The search of one arm, which plays one run a turn."""

    arm: Arm
    capacity: float
    running: Searching
    expected: Iterator[float]
    """The seconds of the runs that a typical search would still play; they are planned in the progress."""


class Search:
    """The searches for one service level.

    `check` is called before each run and may raise Stopped. `keep` gets each run as soon as it ends.
    """

    def __init__(
        self,
        options: Options,
        player: Player,
        progress: Progress,
        check: Callable[[], None],
        keep: Callable[[Searched], None],
    ) -> None:
        self._options, self._player, self._progress = options, player, progress
        self._check, self._keep = check, keep
        self._runs = 0

    def levels(self, slo: Slo, arms: Sequence[Arm]) -> Iterator[Level]:
        """Yield the highest load of each arm that holds `slo`, as soon as it is known.

        The arms take turns, run by run, so that a slow minute of the machine hits all of them.

        Raises:
            Stopped: the user stopped the run.
        """
        capacities = [self._capacity(arm) for arm in arms]
        searching = [self._search(slo, arm, most) for arm, most in zip(arms, capacities, strict=True)]
        while searching:
            for one in list(searching):
                try:
                    next(one.running)
                except StopIteration as end:
                    searching.remove(one)
                    self._progress.extend(-sum(one.expected) / self._options.round)
                    yield Level(one.arm.name, str(slo), self._options.slo_unit, one.capacity, end.value)

    @property
    def _is_rate(self) -> bool:
        return self._options.slo_load == "rate"

    def _capacity(self, arm: Arm) -> float:
        self._check()
        return capacity(self._options, arm, self._player)

    def _search(self, slo: Slo, arm: Arm, per_second: float) -> "_Turns":
        seconds = expected(slo, per_second, self._options)
        self._progress.extend(sum(seconds) / self._options.round)
        left = iter(seconds)

        def probe(load: float, requests: float) -> Probe:
            seconds = lasting(requests, load if self._is_rate else per_second, self._options)
            self._progress.extend((seconds - next(left, 0.0)) / self._options.round)
            played = self._played(arm, load, seconds)
            seen = observed(played.stretch, arm, slo)
            self._keep(Searched(per_second, judged(slo, load, seen), played))
            text = f"{slo}, {arm.name}, {played.round.workload.name}: {seen.over} of {seen.requests} requests over"
            self._progress.step(text, seconds / self._options.round)
            return seen

        ceiling = 1.1 * per_second if self._is_rate else float(self._options.users)
        return _Turns(arm, per_second, search(slo, ceiling, probe, whole=not self._is_rate), left)

    def _played(self, arm: Arm, load: float, seconds: float) -> Played:
        """Play one run."""
        self._check()
        options = self._options
        self._runs += 1  # each run has its own arrivals: no run replays the one before it
        workload = Workload(rate=load) if self._is_rate else Workload(concurrency=round(load))
        settle = settling(options.settle, seconds)
        planned = Round((arm,), workload, self._runs, settle, seconds, options.seed + self._runs)
        return Played(arm, planned, self._player.play(planned), Scrape({}), Scrape({}))


def observed(played: Stretch, arm: Arm, slo: Slo) -> Probe:
    """Return what a run says about a service level.

    The load generator limited a run that did not hold the level if it was busy, or if the level would have held
    counted from when the requests were sent instead of from when they were due.
    """
    counted = played.counted(arm)
    allowed = (1 - slo.q) * len(counted)
    over = sum(bool(r.error) or r.latency > slo.seconds for r in counted)
    service = sum((bool(r.error) and r.error != NEVER_SENT) or r.end - r.start > slo.seconds for r in counted)
    return Probe(len(counted), over, over > allowed and (played.cpu > BUSY or service <= allowed))


def settling(least: float, seconds: float) -> float:
    """Return the seconds that a run settles: the queue of a busy service takes long to reach its usual length."""
    return max(least, SETTLE_SHARE * seconds)


def lasting(requests: float, rate: float, options: Options) -> float:
    """Return the seconds in which `requests` are due at `rate`, within SHORTEST and LONGEST, and a round at least."""
    return max(options.round, min(LONGEST, max(SHORTEST, requests / rate)))


def expected(slo: Slo, capacity: float, options: Options) -> list[float]:
    """Return the seconds of each run of a typical search, for an arm of this many requests per second."""
    return [lasting(requests, PEAK_SHARE * capacity, options) for requests in sizes(slo)]


def capacity(options: Options, arm: Arm, player: Player) -> float:
    """Return the requests per second that an arm answers to many users without think time, at least 1."""
    workload = Workload(concurrency=min(CAPACITY_USERS, options.users))
    played = player.play(Round((arm,), workload, 0, CAPACITY_SETTLE, CAPACITY_SECONDS, options.seed))
    return max(1.0, played.answered(arm) / CAPACITY_SECONDS)

"""The course of a run: warm up, play rounds until no cell drifts, read the service's metrics around each of them."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from dataclasses import replace
from itertools import chain, islice, takewhile

from loadtest.analysis.stability import unstable
from loadtest.analysis.statistics import quantile
from loadtest.client.scrape import Scrape
from loadtest.client.server import Service
from loadtest.energy import Energy, Meters
from loadtest.journal import Journal
from loadtest.options import Options
from loadtest.plan import Arm, Round, Timing, Workload, blocks, planned
from loadtest.progress import Progress
from loadtest.records import Generating, Played, Stretch
from loadtest.slo.level import Level, Slo
from loadtest.slo.stopped import Searched
from loadtest.slo.turns import WORK_PER_LEVEL, Search, Stopped, expected
from loadtest.timing import is_continuous, timing

NOTHING = Scrape({})


class Drive:
    """One run. Its lists of results and the journal grow while it goes on, so an early end leaves what was measured.

    `stop` is asked between two rounds whether the user stopped the run.
    """

    def __init__(
        self,
        options: Options,
        arms: Sequence[Arm],
        services: Sequence[Service],
        journal: Journal,
        meters: Meters,
        stop: Callable[[], bool],
    ) -> None:
        self._options, self._journal, self._stop = options, journal, stop
        self._arms, self._meters = tuple(arms), meters
        self._services = {service.url: service for service in services}
        self._together = [self._arms] if options.contended else [(arm,) for arm in self._arms]
        self._block = len(self._together) * len(options.workloads)
        self.progress = Progress(self._block * (options.rounds + 1))
        self.played: list[Played] = []
        self.searched: list[Searched] = []
        """The runs of all searches, without their requests."""
        self.levels: list[Level] = []
        self._searches = 0.0
        """The steps of progress that stand for the search of the service level until it begins."""
        self._expect(dict.fromkeys(self._arms, WORK_PER_LEVEL / options.slo.seconds if options.slo else 1.0))

    def play(self, generator: Generating) -> None:
        """Play the rounds, then search for the service level if the options name one.

        Raises:
            Stopped: the user stopped the run.
            ServerError: a service went away.
        """
        options = self._options
        timings = self._warm_up(generator)
        self.progress.extend(self._size(timings) - self._block * options.rounds)
        names = ", ".join(arm.name for arm in self._arms)
        self.progress.say(f"measuring {names} under {', '.join(workload.name for workload in options.workloads)}")
        on_end = {w: t for w, t in timings.items() if is_continuous(options, w)}
        by_round = {w: t for w, t in timings.items() if w not in on_end}
        for one in self._until_stable(by_round) if by_round else ():
            self._check()
            played = self._round(one, generator)
            self._keep(played)
            self._step(one, running(played, options.images_per_request))
        for workload, own in on_end.items():
            self._continuous(workload, own, generator)
            self._check()
        if options.slo:
            self._search(options.slo, generator)

    def _search(self, slo: Slo, generator: Generating) -> None:
        self.progress.extend(-self._searches)
        self.progress.say(f"searching for the highest load that holds {slo}")
        search = Search(self._options, generator, self.progress, self._check, self._keep_run)
        for level in search.levels(slo, self._arms):
            self.levels.append(level)
            self._journal.level(level)

    def _keep_run(self, run: Searched) -> None:
        self.searched.append(replace(run, played=run.played.bare))
        self._journal.search(run)

    def _keep(self, played: Sequence[Played]) -> None:
        self.played += played
        self._journal.add(played)

    def _expect(self, capacities: Mapping[Arm, float]) -> None:
        """Plan the search of the service level for arms that answer so many requests per second."""
        options, before = self._options, self._searches
        if options.slo:
            seconds = [sum(expected(options.slo, capacity, options)) for capacity in capacities.values()]
            self._searches = sum(seconds) / options.round
        self.progress.extend(self._searches - before)

    def _check(self) -> None:
        if self._stop():
            raise Stopped

    def _size(self, timings: Mapping[Workload, Timing]) -> float:
        """Return how many rounds of the usual length the planned ones amount to."""
        return len(self._together) * sum(t.rounds * t.seconds for t in timings.values()) / self._options.round

    def _step(self, played: Round, text: str) -> None:
        self.progress.step(text, played.seconds / self._options.round)

    def _blocks(self, timings: Mapping[Workload, Timing]) -> Iterator[list[Round]]:
        return blocks(self._arms, timings, seed=self._options.seed, contended=self._options.contended)

    def _warm_up(self, generator: Generating) -> dict[Workload, Timing]:
        """Load every cell once, uncounted, and return the rounds of each workload that follow from it."""
        slowest = dict.fromkeys(self._options.workloads, 0.0)
        answered = dict.fromkeys(self._arms, 1.0)
        for workload in self._options.workloads if self._options.warm_up else ():
            for arms in self._together:
                self._check()
                stretch = generator.play(Round(arms, workload, -1, 0.0, self._options.warm_up, self._options.seed))
                for arm in arms:
                    requests = stretch.requests[arm.name]
                    answered[arm] = max(answered[arm], len(requests) / self._options.warm_up)
                    p50 = quantile([request.latency for request in requests if not request.error], 0.5) or 0.0
                    slowest[workload] = max(slowest[workload], p50)
                self.progress.step(f"warmed up {', '.join(arm.name for arm in arms)}, {workload.name}")
        generator.rewind()
        if self._options.warm_up:
            self._expect(answered)
        return {workload: timing(self._options, workload, p50) for workload, p50 in slowest.items()}

    def _until_stable(self, timings: Mapping[Workload, Timing]) -> Iterator[Round]:
        """Yield the planned rounds, then more until no cell drifts or the most rounds are reached."""
        options, few = self._options, planned(timings)
        most, more = round(few * options.most_rounds / options.rounds), max(1, few // 4)
        for number, block in enumerate(islice(self._blocks(timings), most)):
            late = number - few
            if late >= 0 and late % more == 0:
                if not (moving := unstable(self._arms, list(timings), self.played)):
                    return
                self.progress.extend(self._size(timings) * more / few)
                self.progress.say(f"{moving[0].arm}, {moving[0].workload}: {moving[0].reason}; so {more} more rounds")
            yield from block

    def _round(self, one: Round, generator: Generating) -> list[Played]:
        before, unused = self._scrapes(one.arms), self._meters.read()
        stretch = generator.play(one)
        energy = self._meters.of(one.arms, unused)
        return recorded([(one, stretch)], before, self._scrapes(one.arms), energy)

    def _continuous(self, workload: Workload, own: Timing, generator: Generating) -> None:
        """Play the rounds of one workload on end, or those until the user stops the run."""
        rounds = chain.from_iterable(islice(self._blocks({workload: own}), own.rounds))
        before = self._scrapes(self._arms)
        played: list[tuple[Round, Stretch]] = []
        try:
            played.extend(generator.play_on(self._announced(takewhile(lambda _: not self._stop(), rounds))))
        finally:
            if played:
                self._keep(recorded(played, before, self._scrapes(self._arms)))

    def _announced(self, rounds: Iterable[Round]) -> Iterator[Round]:
        """Yield the rounds, and count each as done when the next one is asked for."""
        for one in rounds:
            yield one
            self._step(one, f"block {one.block + 1}, {one.workload.name}: {', '.join(arm.name for arm in one.arms)}")

    def _scrapes(self, arms: Sequence[Arm]) -> dict[str, Scrape]:
        """Return the metrics of the arms' services by their URL, of those that have metrics."""
        return {url: self._services[url].scrape() for url in {arm.url for arm in arms if arm.is_told}}


def recorded(
    played: Sequence[tuple[Round, Stretch]],
    before: Mapping[str, Scrape],
    after: Mapping[str, Scrape],
    energy: Energy | None = None,
) -> list[Played]:
    """Return each arm's part of rounds that were played between two readings of the metrics.

    The first part of an arm holds the whole increase of its counters. The others hold none, so that the sum is right.
    `energy` belongs to every part, so it is given for one round of one arm only.
    """
    added = {url: after[url] - before[url] for url in before}
    loaded = {arm: None for one, _ in played for arm in one.arms}
    made: list[Played] = []
    for one, stretch in played:
        for arm in one.arms:
            is_first = all(part.arm != arm for part in made)
            variants = {other.variant for other in loaded if other.url == arm.url}
            made.append(
                Played(
                    arm=arm,
                    round=one,
                    stretch=stretch,
                    server=added[arm.url].about(arm.variant) if is_first and arm.is_told else NOTHING,
                    gauges=after[arm.url].about(arm.variant) if arm.is_told else NOTHING,
                    foreign=foreign(added[arm.url], variants) if is_first and arm.is_told else 0,
                    energy=energy,
                    front_cpu=front_cpu(added[arm.url], stretch) if arm.is_told and len(played) == 1 else None,
                )
            )
    return made


def front_cpu(added: Scrape, stretch: Stretch) -> float | None:
    """Return the CPU seconds of a service's HTTP process per second of a round; None where they are not stated."""
    used = added.total("process_cpu_seconds_total")
    return used / stretch.seconds if used and stretch.seconds else None


def foreign(added: Scrape, variants: Set[str]) -> int:
    """Return the predictions that a service counted for other variants than these."""
    name = "precision_requests_total"
    return round(added.total(name) - sum(added.about(variant).total(name) for variant in variants))


def running(played: Sequence[Played], images_per_request: int) -> str:
    """Return the numbers of the round that has just ended, for the progress line."""
    texts = []
    for p in played:
        p50 = quantile([request.latency for request in p.counted if not request.error], 0.5)
        rate = p.answered * images_per_request / p.round.seconds
        texts.append(f"{p.arm.name} {rate:.0f} images/s" + (f", p50 {1000 * p50:.1f} ms" if p50 else ""))
    return f"round {played[0].round.block + 1}, {played[0].round.workload.name}: {'; '.join(texts)}"

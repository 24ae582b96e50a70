"""The course of a run: warm up, play rounds until they are stable, read the service's metrics around each of them."""

from collections.abc import Callable, Iterator, Mapping, Sequence, Set

from loadtest.analysis.stability import unstable
from loadtest.analysis.statistics import quantile
from loadtest.client.generator import Generator
from loadtest.client.scrape import Scrape
from loadtest.client.server import Service
from loadtest.journal import Journal
from loadtest.options import Options
from loadtest.plan import Arm, Round, Workload, blocks
from loadtest.progress import Progress
from loadtest.records import Played
from loadtest.slo.level import Level, Slo
from loadtest.slo.search import sizes
from loadtest.slo.turns import PEAK_SHARE, Search, Stopped, lasting

LONGEST_SETTLE = 5.0
"""Seconds that a round settles at most."""


class Drive:
    """One run. `played`, `levels` and the journal grow while it goes on, so an early end leaves the results until then.

    `stop` is asked between two rounds whether the user stopped the run.
    """

    def __init__(
        self,
        options: Options,
        arms: Sequence[Arm],
        services: Sequence[Service],
        journal: Journal,
        stop: Callable[[], bool],
    ) -> None:
        self._options, self._journal, self._stop = options, journal, stop
        self._arms = tuple(arms)
        self._services = {service.url: service for service in services}
        self._together = [self._arms] if options.contended else [(arm,) for arm in self._arms]
        self._block = len(self._together) * len(options.workloads)
        self.progress = Progress(self._block * (options.rounds + 1))
        self.played: list[Played] = []
        self.levels: list[Level] = []
        self._searches = 0.0
        """The steps of progress that stand for the search of the service level until it begins."""
        self._expect(dict.fromkeys(self._arms, 1 / options.slo.seconds if options.slo else 1.0))

    def play(self, generator: Generator) -> None:
        """Play the rounds, then search for the service level if the options name one.

        Raises:
            Stopped: the user stopped the run.
            ServerError: a service went away.
        """
        settle = self._warm_up(generator)
        options = self._options
        names = ", ".join(arm.name for arm in self._arms)
        self.progress.say(f"measuring {names} under {', '.join(workload.name for workload in options.workloads)}")
        plan = blocks(
            self._arms,
            options.workloads,
            seconds=options.round,
            settle=settle,
            seed=options.seed,
            contended=options.contended,
        )
        for planned in self._until_stable(plan):
            self._check()
            self._keep(self._round(planned, generator))
        if options.slo:
            self.progress.extend(-self._searches)
            for level in Search(options, generator, self.progress, self._check).levels(options.slo, self._arms):
                self.levels.append(level)
                self._journal.level(level)

    def _keep(self, played: Sequence[Played]) -> None:
        self.played += played
        self._journal.add(played)
        self.progress.step(running(played, self._options.images_per_request))

    def _expect(self, capacities: Mapping[Arm, float]) -> None:
        """Plan the search of the service level for arms that answer so many requests per second."""
        slo, before = self._options.slo, self._searches
        self._searches = sum(searching(slo, each) for each in capacities.values()) / self._options.round if slo else 0.0
        self.progress.extend(self._searches - before)

    def _check(self) -> None:
        if self._stop():
            raise Stopped

    def _warm_up(self, generator: Generator) -> dict[Workload, float]:
        """Load every cell once, uncounted, and return the seconds that the rounds of each workload settle.

        They settle for the p50 of the slowest arm at least: all users start together, and nobody has an answer before.
        """
        settle = dict.fromkeys(self._options.workloads, self._options.settle)
        answered = dict.fromkeys(self._arms, 1.0)
        for workload in self._options.workloads if self._options.warm_up else ():
            for arms in self._together:
                self._check()
                stretch = generator.play(Round(arms, workload, -1, 0.0, self._options.warm_up, self._options.seed))
                for arm in arms:
                    requests = stretch.requests[arm.name]
                    answered[arm] = max(answered[arm], len(requests) / self._options.warm_up)
                    p50 = quantile([request.latency for request in requests], 0.5) or 0.0
                    settle[workload] = min(LONGEST_SETTLE, max(settle[workload], p50))
                self.progress.step(f"warmed up {', '.join(arm.name for arm in arms)}, {workload.name}")
        generator.rewind()
        if self._options.warm_up:
            self._expect(answered)
        return settle

    def _until_stable(self, plan: Iterator[list[Round]]) -> Iterator[Round]:
        """Yield the planned rounds, then more until every cell is stable or `most_rounds` is reached."""
        options = self._options
        more = max(1, options.rounds // 4)
        for number, block in zip(range(options.most_rounds), plan, strict=False):
            late = number - options.rounds
            if late >= 0 and late % more == 0:
                if not (moving := unstable(self._arms, options.workloads, self.played, options.tolerance)):
                    return
                self.progress.extend(more * self._block)
                self.progress.say(f"not stable yet, so {more} more rounds: {moving[0]}")
            yield from block

    def _round(self, planned: Round, generator: Generator) -> list[Played]:
        urls = {arm.url for arm in planned.arms}
        before = {url: self._services[url].scrape() for url in urls}
        stretch = generator.play(planned)
        after = {url: self._services[url].scrape() for url in urls}
        added = {url: after[url] - before[url] for url in urls}
        return [
            Played(
                arm=arm,
                round=planned,
                stretch=stretch,
                server=added[arm.url].about(arm.variant),
                gauges=after[arm.url].about(arm.variant),
                foreign=foreign(added[arm.url], {other.variant for other in planned.arms if other.url == arm.url}),
            )
            for arm in planned.arms
        ]


def searching(slo: Slo, capacity: float) -> float:
    """Return the seconds that the search for a service level takes about, for an arm of this many requests a second."""
    return sum(lasting(requests, PEAK_SHARE * capacity) for requests in sizes(slo))


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

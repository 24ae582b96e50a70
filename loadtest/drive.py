"""The course of a run: warm up, play rounds until they are stable, read the service's metrics around each of them."""

from collections.abc import Callable, Iterator, Sequence, Set

from loadtest.analysis.stability import unstable
from loadtest.analysis.statistics import quantile
from loadtest.client.generator import Generator
from loadtest.client.scrape import Scrape
from loadtest.client.server import Service
from loadtest.options import Options
from loadtest.plan import Arm, Round, Workload, blocks
from loadtest.progress import Progress
from loadtest.records import Played
from loadtest.slo.level import Level
from loadtest.slo.turns import Search, Stopped

LONGEST_SETTLE = 5.0
"""Seconds that a round settles at most."""


class Drive:
    """One run. `played` and `levels` grow while it goes on, so an early end leaves the results until then.

    `stop` is asked between two rounds whether the user stopped the run.
    """

    def __init__(
        self, options: Options, arms: Sequence[Arm], services: Sequence[Service], stop: Callable[[], bool]
    ) -> None:
        self._options, self._stop = options, stop
        self._arms = tuple(arms)
        self._services = {service.url: service for service in services}
        self._together = [self._arms] if options.contended else [(arm,) for arm in self._arms]
        self._block = len(self._together) * len(options.workloads)
        self.progress = Progress(self._block * (options.rounds + 1))
        self.played: list[Played] = []
        self.levels: list[Level] = []

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
            played = self._round(planned, generator)
            self.played += played
            self.progress.step(running(played, options.images_per_request))
        if options.slo:
            for level in Search(options, generator, self.progress, self._check).levels(options.slo, self._arms):
                self.levels.append(level)

    def _check(self) -> None:
        if self._stop():
            raise Stopped

    def _warm_up(self, generator: Generator) -> dict[Workload, float]:
        """Load every cell once, uncounted, and return the seconds that the rounds of each workload settle.

        They settle for the p50 of the slowest arm at least: all users start together, and nobody has an answer before.
        """
        settle = dict.fromkeys(self._options.workloads, self._options.settle)
        for workload in self._options.workloads if self._options.warm_up else ():
            for arms in self._together:
                self._check()
                stretch = generator.play(Round(arms, workload, -1, 0.0, self._options.warm_up, self._options.seed))
                for requests in stretch.requests.values():
                    p50 = quantile([request.latency for request in requests], 0.5) or 0.0
                    settle[workload] = min(LONGEST_SETTLE, max(settle[workload], p50))
                self.progress.step(f"warmed up {', '.join(arm.name for arm in arms)}, {workload.name}")
        generator.rewind()
        return settle

    def _until_stable(self, plan: Iterator[list[Round]]) -> Iterator[Round]:
        """Yield the planned rounds, then more until no cell drifts or `most_rounds` is reached."""
        options = self._options
        more = max(1, options.rounds // 4)
        for number, block in zip(range(options.most_rounds), plan, strict=False):
            late = number - options.rounds
            if late >= 0 and late % more == 0:
                if not (moving := unstable(self._arms, options.workloads, self.played)):
                    return
                self.progress.extend(more * self._block)
                self.progress.say(f"{moving[0].arm}, {moving[0].workload}: {moving[0].reason}; so {more} more rounds")
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

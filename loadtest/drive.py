"""Plays a plan: warms up, plays rounds until they are stable, reads the service's metrics around each of them."""

from collections.abc import Callable, Iterator, Set

from loadtest.analysis.statistics import quantile
from loadtest.client.generator import Generator
from loadtest.client.scrape import Scrape
from loadtest.client.server import Service
from loadtest.fleet import Fleet
from loadtest.levels import Search, Stopped
from loadtest.measured import Measured
from loadtest.options import Options
from loadtest.plan import Round, Workload, blocks
from loadtest.progress import Progress
from loadtest.records import Played

LONGEST_SETTLE = 5.0


class Drive:
    """One run; `stop` says between two rounds whether the user has had enough."""

    def __init__(
        self, options: Options, measured: Measured, services: dict[str, Service], stop: Callable[[], bool]
    ) -> None:
        self._options, self._measured, self._services, self._stop = options, measured, services, stop
        arms = tuple(measured.arms)
        self._together = [arms] if options.contended else [(arm,) for arm in arms]
        self._block = len(self._together) * len(options.workloads)
        self.progress = Progress(self._block * (options.rounds + 1))

    def play(self, generator: Generator | Fleet) -> None:
        """Everything that was asked for, into `measured`.

        Raises:
            Stopped: the user has had enough.
            ServerError: the service went away.
        """
        settle = self._warm_up(generator)
        workloads = self._options.workloads
        names = ", ".join(arm.name for arm in self._measured.arms)
        self.progress.say(f"measuring {names} under {', '.join(workload.name for workload in workloads)}")
        plan = blocks(
            self._measured.arms,
            workloads,
            seconds=self._options.round,
            settle=settle,
            seed=self._options.seed,
            contended=self._options.contended,
        )
        for planned in self._until_stable(plan):
            self._check()
            played = self._round(planned, generator)
            self._measured.played += played
            self.progress.step(running(played, self._options.images_per_request))
        if self._options.slo:
            search = Search(self._options, generator, self.progress, self._check)
            for level in search.levels(self._options.slo, self._measured.arms):
                self._measured.levels.append(level)

    def _check(self) -> None:
        if self._stop():
            raise Stopped

    def _warm_up(self, generator: Generator | Fleet) -> dict[Workload, float]:
        """Load every cell once, uncounted; gives the time that each workload's rounds take to settle.

        At least the p50 of its slowest arm: before that nobody has got an answer, and all users started together.
        """
        settle = dict.fromkeys(self._options.workloads, self._options.settle)
        for workload in self._options.workloads if self._options.warm_up else ():
            for arms in self._together:
                self._check()
                seconds = self._options.warm_up
                stretch, _ = generator.play(Round(arms, workload, -1, 0.0, seconds, self._options.seed))
                for requests in stretch.requests.values():
                    p50 = quantile([request.latency for request in requests], 0.5) or 0.0
                    settle[workload] = min(LONGEST_SETTLE, max(settle[workload], p50))
                self.progress.step(f"warmed up {', '.join(arm.name for arm in arms)}, {workload.name}")
        generator.rewind()
        return settle

    def _until_stable(self, plan: Iterator[list[Round]]) -> Iterator[Round]:
        """The planned rounds, then more of them until every cell is stable or the budget is spent."""
        more = max(1, self._options.rounds // 4)
        for number, block in zip(range(self._options.most_rounds), plan, strict=False):
            late = number - self._options.rounds
            if late >= 0 and late % more == 0:
                if not (unstable := self._measured.unstable(self._options)):
                    return
                self.progress.extend(more * self._block)
                self.progress.say(f"not stable yet, so {more} more rounds: {unstable[0]}")
            yield from block

    def _round(self, planned: Round, generator: Generator | Fleet) -> list[Played]:
        urls = {arm.url for arm in planned.arms}
        before = {url: self._services[url].scrape() for url in urls}
        stretch, client_cpu = generator.play(planned)
        after = {url: self._services[url].scrape() for url in urls}
        added = {url: after[url] - before[url] for url in urls}
        return [
            Played(
                arm=arm,
                round=planned,
                opened=stretch.opened,
                closed=stretch.closed,
                requests=stretch.requests[arm.name],
                server=added[arm.url].about(arm.variant),
                gauges=after[arm.url].about(arm.variant),
                client_cpu=client_cpu,
                lateness=tuple(stretch.lateness),
                starved=stretch.starved,
                foreign=foreign(added[arm.url], {other.variant for other in planned.arms if other.url == arm.url}),
            )
            for arm in planned.arms
        ]


def foreign(added: Scrape, variants: Set[str]) -> int:
    """Predictions that a service counted for other variants than these."""
    name = "precision_requests_total"
    return round(added.total(name) - sum(added.about(variant).total(name) for variant in variants))


def running(played: list[Played], images_per_request: int) -> str:
    """The numbers of the round that has just ended."""
    texts = []
    for p in played:
        p50 = quantile([request.latency for request in p.counted if not request.error], 0.5)
        rate = len(p.finished) * images_per_request / p.round.seconds
        texts.append(f"{p.arm.name} {rate:.0f} images/s" + (f", p50 {1000 * p50:.1f} ms" if p50 else ""))
    return f"round {played[0].round.block + 1}, {played[0].round.workload.name}: {'; '.join(texts)}"

"""Drives the plan: asks the services what they are, plays the rounds, reads the metrics around each of them."""

import signal
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Any

import gevent

from loadtest.generator import Generator
from loadtest.images import Bodies, LabelledImages, bodies, read
from loadtest.levels import Search, Stopped
from loadtest.options import Options
from loadtest.plan import Arm, Round, Workload, blocks
from loadtest.progress import Progress
from loadtest.records import Played
from loadtest.server import Excluded, ServerError, Service, choose
from loadtest.stability import drift

OVERHEAD = 0.15
"""Seconds that the plan allows a round for its last answers and for reading the metrics."""


class NothingToMeasure(Exception):
    """No variant can be measured; the text says why."""


@dataclass
class Measured:
    """All that a run found out, before any statistics."""

    arms: list[Arm]
    excluded: list[Excluded]
    images: LabelledImages
    bodies: Bodies
    servers: list[dict[str, Any]]
    played: list[Played] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    levels: list[dict[str, Any]] = field(default_factory=list)
    """What the search for the highest load within a service level found, per arm."""
    partial: bool = False
    seconds: float = 0.0

    def cell(self, arm: Arm, workload: Workload) -> list[Played]:
        """The rounds of one arm under one workload, in the order in which they were played."""
        return [p for p in self.played if p.arm == arm and p.round.workload == workload]

    def unstable(self, options: Options) -> list[str]:
        """What keeps the rounds from being stable, a sentence per cell."""
        cells = [(arm, workload) for workload in options.workloads for arm in self.arms]
        reasons = [(arm, workload, drift(self.cell(arm, workload), options.tolerance)) for arm, workload in cells]
        return [f"{arm.name}, {workload.name}: {reason}" for arm, workload, reason in reasons if reason]


class Interrupt:
    """Ctrl-C asks for an end after this round; a second one ends at once."""

    def __init__(self) -> None:
        self.asked = False
        self._handler = gevent.signal_handler(signal.SIGINT, self._ask)

    def _ask(self) -> None:
        self.asked = True
        self._handler.cancel()
        signal.signal(signal.SIGINT, signal.default_int_handler)


def measure(options: Options) -> Measured:
    """Play the whole plan, or as much of it as Ctrl-C leaves.

    Raises:
        ImagesError: there are no images to send.
        ServerError: a service cannot be reached, or is not one.
        NothingToMeasure: no wanted variant is ready.
    """
    began = time.perf_counter()
    images = read(options.images)
    services = {url: Service(url, label) for label, url in options.urls}
    measured = Measured([], [], images, bodies(images, options.payload, options.images_per_request, options.seed), [])
    for service in services.values():
        description = service.describe()
        arms, excluded = choose(service, description, options.variants)
        measured.arms += arms
        measured.excluded += excluded
        measured.servers.append({"label": service.label, "url": service.url, **description})
    if not measured.arms:
        reasons = "; ".join(f"{e.name}: {e.reason}" for e in measured.excluded) or "the service offers none"
        raise NothingToMeasure(f"no variant can be measured ({reasons})")
    _play_all(options, measured, services)
    measured.seconds = time.perf_counter() - began
    return measured


def _play_all(options: Options, measured: Measured, services: dict[str, Service]) -> None:
    plan = blocks(
        measured.arms,
        options.workloads,
        seconds=options.round,
        settle=options.settle,
        seed=options.seed,
        contended=options.contended,
    )
    progress = Progress(planned_seconds(options, len(measured.arms), options.rounds))
    for excluded in measured.excluded:
        progress.say(f"left out: {excluded.name} ({excluded.reason})")
    generator = Generator(measured.bodies, list(services), users_needed(options, len(measured.arms)), options.timeout)
    interrupt = Interrupt()
    try:
        generator.start()
        _warm_up(options, measured.arms, generator, progress, lambda: interrupt.asked)
        names = ", ".join(arm.name for arm in measured.arms)
        progress.say(f"measuring {names} under {', '.join(workload.name for workload in options.workloads)}")
        for planned in _until_stable(plan, options, measured, progress):
            if interrupt.asked:
                measured.partial = True
                break
            played = _play(planned, generator, services)
            measured.played += played
            progress.show(_running(played, options))
        if options.slo and not measured.partial:
            searching = Search(options, generator, progress, lambda: interrupt.asked)
            for arm in measured.arms:
                measured.levels.append(searching.level(options.slo, arm))
        measured.problems += restarted(measured, services)
    except Stopped:
        measured.partial = True
    except ServerError as error:
        measured.problems.append(f"the service went away: {error}")
        measured.partial = True
    finally:
        progress.clear()
        generator.stop()


def _until_stable(
    plan: Iterator[list[Round]], options: Options, measured: Measured, progress: Progress
) -> Iterator[Round]:
    """The planned rounds, then more of them until every cell is stable or the budget is spent."""
    for number, block in zip(range(options.most_rounds), plan, strict=False):
        late = number - options.rounds
        if late >= 0 and late % max(1, options.rounds // 4) == 0:
            if not (unstable := measured.unstable(options)):
                return
            progress.extend(planned_seconds(options, len(measured.arms), max(1, options.rounds // 4), warm_up=False))
            progress.show(f"not stable yet: {unstable[0]}")
        yield from block


def restarted(measured: Measured, services: dict[str, Service]) -> list[str]:
    """Which arms are not what they were at the start."""
    cards = {
        (url, str(card["name"])): card for url, service in services.items() for card in service.describe()["variants"]
    }
    now = [(arm, cards.get((arm.url, arm.variant), {})) for arm in measured.arms]
    watched = ("state", "load_seconds", "checkpoint_sha256")
    return [
        f"{arm.name} was restarted or replaced during the run"
        for arm, card in now
        if any(card.get(key) != arm.card.get(key) for key in watched)
    ]


def _warm_up(
    options: Options, arms: list[Arm], generator: Generator, progress: Progress, stop: Callable[[], bool]
) -> None:
    for workload in options.workloads:
        for arm in arms:
            if options.warm_up and not stop():
                progress.show(f"warming up {arm.name}, {workload.name}")
                generator.play(Round((arm,), workload, -1, 0.0, options.warm_up, options.seed))
    generator.rewind()


def _play(planned: Round, generator: Generator, services: dict[str, Service]) -> list[Played]:
    urls = {arm.url for arm in planned.arms}
    before = {url: services[url].scrape() for url in urls}
    stretch, client_cpu = generator.play(planned)
    after = {url: services[url].scrape() for url in urls}
    return [
        Played(
            arm=arm,
            round=planned,
            opened=stretch.opened,
            closed=stretch.closed,
            requests=stretch.requests[arm.name],
            server=(after[arm.url] - before[arm.url]).about(arm.variant),
            gauges=after[arm.url].about(arm.variant),
            client_cpu=client_cpu,
            lateness=tuple(stretch.lateness),
            starved=stretch.starved,
        )
        for arm in planned.arms
    ]


def _running(played: list[Played], options: Options) -> str:
    texts = []
    for p in played:
        latencies = sorted(r.latency for r in p.counted if not r.error)
        p50 = f"{1000 * latencies[len(latencies) // 2]:.1f} ms" if latencies else "-"
        rate = len(p.finished) * options.images_per_request / p.round.seconds
        texts.append(f"{p.arm.name}: {rate:.0f} images/s, p50 {p50}")
    first = played[0].round
    return f"round {first.block + 1}/{max(options.rounds, first.block + 1)}, {first.workload.name}, {'; '.join(texts)}"


def users_needed(options: Options, arms: int) -> int:
    """The most users that a round keeps busy; open workloads need enough that no arrival waits for one."""
    together = arms if options.contended else 1
    closed = max((w.concurrency or 0 for w in options.workloads), default=1) * together
    return max(closed, options.users if options.slo or any(w.rate for w in options.workloads) else 1)


def planned_seconds(options: Options, arms: int, rounds: int, *, warm_up: bool = True) -> float:
    """About how long so many rounds of every cell take."""
    groups = 1 if options.contended else arms
    a_round = options.round + options.settle + OVERHEAD
    return len(options.workloads) * (groups * rounds * a_round + arms * options.warm_up * warm_up)

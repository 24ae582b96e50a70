"""A whole run: ask the services what they offer, play the plan, check that the services are still the same."""

import time
from collections.abc import Sequence
from pathlib import Path

from loadtest.client.classes import chosen
from loadtest.client.description import VariantInfo
from loadtest.client.generator import Generator
from loadtest.client.images import bodies
from loadtest.client.server import ServerError, Service, choose
from loadtest.drive import Drive
from loadtest.energy import find
from loadtest.interrupt import Interrupt
from loadtest.journal import Journal, Started
from loadtest.measured import Measured, Subjects
from loadtest.options import Options, Target
from loadtest.plan import Arm
from loadtest.slo.turns import Stopped


class NothingToMeasure(Exception):
    """No variant can be measured; the text says why."""


def measure(options: Options, command: Sequence[str], folder: Path) -> Measured:
    """Play the whole plan, or the part of it that comes before a signal, and write the raw files into `folder`.

    Raises:
        OSError: the folder cannot be written.
        ImagesError: there are no images to send, or they are of classes that the services do not know.
        ServerError: a service cannot be reached, or its answer is not understood.
        NothingToMeasure: no wanted variant is ready.
    """
    began = time.perf_counter()
    subjects = discover(options.urls, options.variants)
    images = chosen(options.images, options.payload, [description for _, description in subjects.services])
    sent = bodies(images, options.payload, options.images_per_request, options.seed)
    services = [service for service, _ in subjects.services]
    meters = find(subjects.arms)
    metering = meters.idle()
    journal = Journal(folder, Started(tuple(command), options, subjects, metering))
    interrupt = Interrupt()
    drive = Drive(options, subjects.arms, services, journal, meters, interrupt.asked)
    for sentence in (*(f"{one.name} ({one.reason})" for one in subjects.excluded), *images.left_out):
        drive.progress.say(f"left out: {sentence}")
    urls = list(dict.fromkeys(service.url for service in services))
    generator = Generator(sent, urls, users_needed(options, len(subjects.arms)), options.timeout)
    problems, partial = _play(drive, generator, subjects, interrupt)
    return Measured(
        subjects,
        images,
        sent,
        played=tuple(drive.played),
        levels=tuple(drive.levels),
        searched=tuple(drive.searched),
        problems=problems,
        partial=partial,
        stopped_by=interrupt.signum if partial and not problems else None,
        seconds=time.perf_counter() - began,
        metering=metering,
    )


def _play(drive: Drive, generator: Generator, subjects: Subjects, interrupt: Interrupt) -> tuple[tuple[str, ...], bool]:
    """Play the plan. Return the problems that make the run INVALID, and whether it ended early."""
    try:
        with interrupt.ending():
            generator.start()
            drive.play(generator)
        return restarted(subjects.arms, [service for service, _ in subjects.services]), False
    except Stopped:
        return (), True
    except ServerError as error:
        return (f"the run could not go on: {error}",), True
    finally:
        drive.progress.clear()
        generator.stop()


def discover(targets: Sequence[Target], wanted: Sequence[str]) -> Subjects:
    """Ask each service for its variants and return the arms to measure.

    Raises:
        ServerError: a service cannot be reached, or its answer is not understood.
        NothingToMeasure: no wanted variant is ready.
    """
    services = [Service(target.url, target.label) for target in targets]
    described = [(service, service.describe()) for service in services]
    chosen = [choose(service, description, wanted) for service, description in described]
    arms = [arm for ready, _ in chosen for arm in ready]
    excluded = [one for _, left_out in chosen for one in left_out]
    if not arms:
        reasons = "; ".join(f"{e.name}: {e.reason}" for e in excluded) or "the service offers none"
        raise NothingToMeasure(f"no variant can be measured ({reasons})")
    return Subjects(tuple(described), tuple(arms), tuple(excluded))


def restarted(arms: Sequence[Arm], services: Sequence[Service]) -> tuple[str, ...]:
    """Return a sentence for each arm that was restarted or replaced since the start of the run."""
    now = {(service.url, row.name): row for service in services for row in service.describe().variants}
    changed = [arm for arm in arms if identity(now.get((arm.url, arm.variant))) != identity(arm.info)]
    return tuple(f"{arm.name} was restarted or replaced during the run" for arm in changed)


def identity(info: VariantInfo | None) -> tuple[object, ...]:
    """Return the values of a variant's row that change when it is restarted or replaced."""
    return () if info is None else (info.state, info.load_seconds, info.checkpoint_sha256)


def users_needed(options: Options, arms: int) -> int:
    """Return the most users that a round keeps busy. Open workloads need so many that no arrival waits for one."""
    together = arms if options.contended else 1
    closed = max((w.concurrency or 0 for w in options.workloads), default=1) * together
    return max(closed, options.users if options.slo or any(w.rate for w in options.workloads) else 1)

"""A whole run: ask the services what they offer, play the plan, check that the services are still the same."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from loadtest.client.classes import chosen
from loadtest.client.description import VariantInfo
from loadtest.client.fleet import Fleet, FleetError
from loadtest.client.generator import Generator
from loadtest.client.images import Bodies, LabelledImages, bodies
from loadtest.client.server import Excluded, ServerError, Service, choose
from loadtest.client.v2 import Server, Unusable, wire
from loadtest.client.wire import Wire, predict
from loadtest.drive import Drive
from loadtest.energy import find
from loadtest.interrupt import Interrupt
from loadtest.journal import Journal, Started
from loadtest.measured import Measured, Subjects
from loadtest.options import Options
from loadtest.plan import Arm
from loadtest.records import Generating
from loadtest.slo.turns import Stopped
from loadtest.targets import V2, Target


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
    found = discover(options.urls, options.variants)
    images = chosen(options.images, options.payload, [description for _, description in found.services])
    sent = bodies(images, options.payload, options.images_per_request, options.seed)
    subjects, wires = connected(found, images, sent, options)
    services = [Service(target.url) for target, _ in subjects.services]
    meters = find(subjects.arms)
    metering = meters.idle()
    journal = Journal(folder, Started(tuple(command), options, subjects, metering))
    interrupt = Interrupt()
    drive = Drive(options, subjects.arms, services, journal, meters, interrupt.asked)
    for sentence in (*(f"{one.name} ({one.reason})" for one in subjects.excluded), *images.left_out):
        drive.progress.say(f"left out: {sentence}")
    users = users_needed(options, len(subjects.arms))
    generator: Generating = (
        Fleet(wires, users, options, drive.progress.say)
        if options.workers
        else Generator(wires, users, options.timeout)
    )
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
        workers=generator.workers,
        stopped_by=interrupt.signum if partial and not problems else None,
        seconds=time.perf_counter() - began,
        metering=metering,
    )


def _play(
    drive: Drive, generator: Generating, subjects: Subjects, interrupt: Interrupt
) -> tuple[tuple[str, ...], bool]:
    """Play the plan. Return the problems that make the run INVALID, and whether it ended early."""
    try:
        with interrupt.ending():
            generator.start()
            drive.play(generator)
        return restarted(subjects.arms, [target for target, _ in subjects.services]), False
    except Stopped:
        return (), True
    except (ServerError, FleetError) as error:
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
    described = [(target, client(target).describe()) for target in targets]
    chosen = [choose(target, said, () if target.protocol == V2 else wanted) for target, said in described]
    arms = [arm for ready, _ in chosen for arm in ready]
    excluded = [one for _, left_out in chosen for one in left_out]
    return measurable(Subjects(tuple(described), tuple(arms), tuple(excluded)))


def measurable(subjects: Subjects) -> Subjects:
    """Return the subjects, if one of them can be measured.

    Raises:
        NothingToMeasure: none can.
    """
    if not subjects.arms:
        reasons = "; ".join(f"{e.name}: {e.reason}" for e in subjects.excluded) or "the service offers none"
        raise NothingToMeasure(f"no variant can be measured ({reasons})")
    return subjects


def client(target: Target) -> Service | Server:
    """Return the client of a service, which speaks its protocol."""
    return Server(target) if target.protocol == V2 else Service(target.url)


def connected(
    subjects: Subjects, images: LabelledImages, sent: Bodies, options: Options
) -> tuple[Subjects, dict[str, Wire]]:
    """Return how each arm is asked, by its name, and the subjects without the arms that cannot be asked.

    Raises:
        ServerError: a service cannot be reached.
        NothingToMeasure: no arm can be asked.
    """
    servers = {target.label: Server(target) for target in options.urls if target.protocol == V2}
    wires: dict[Arm, Wire] = {}
    excluded = list(subjects.excluded)
    for arm in subjects.arms:
        try:
            asked = ""
            if server := servers.get(arm.service):
                made, asked = wire(server, arm, images, sent.members, options.timeout)
            else:
                made = predict(arm, sent)
            wires[replace(arm, asked=asked)] = made
        except Unusable as error:
            excluded.append(Excluded(arm.name, str(error)))
    found = measurable(Subjects(subjects.services, tuple(wires), tuple(excluded)))
    return found, {arm.name: made for arm, made in wires.items()}


def restarted(arms: Sequence[Arm], targets: Sequence[Target]) -> tuple[str, ...]:
    """Return a sentence for each arm that was restarted or replaced since the start of the run."""
    now = {(target.label, row.name): row for target in targets for row in client(target).describe().variants}
    changed = [arm for arm in arms if identity(now.get((arm.service, arm.variant))) != identity(arm.info)]
    return tuple(f"{arm.name} was restarted or replaced during the run" for arm in changed)


def identity(info: VariantInfo | None) -> tuple[object, ...]:
    """Return the values of a variant's row that change when it is restarted or replaced."""
    return () if info is None else (info.state, info.load_seconds, info.checkpoint_sha256, info.model_version)


def users_needed(options: Options, arms: int) -> int:
    """Return the most users that a round keeps busy. Open workloads need so many that no arrival waits for one."""
    together = arms if options.contended else 1
    closed = max((w.concurrency or 0 for w in options.workloads), default=1) * together
    return max(closed, options.users if options.slo or any(w.rate for w in options.workloads) else 1)

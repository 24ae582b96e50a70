"""A run from the first question to the services to the last: what they are, the plan, and whether they still are it."""

import signal
import time

import gevent

from loadtest.client.generator import Generator
from loadtest.client.images import bodies, read
from loadtest.client.server import ServerError, Service, choose
from loadtest.drive import Drive
from loadtest.fleet import Fleet, GeneratorLost
from loadtest.levels import Stopped
from loadtest.measured import Measured
from loadtest.options import Options

WATCHED = ("state", "load_seconds", "checkpoint_sha256")
"""What of a variant's card changes when it is restarted or replaced."""


class NothingToMeasure(Exception):
    """No variant can be measured; the text says why."""


class Interrupt:
    """Ctrl-C asks for an end after this round; a second one ends at once."""

    def __init__(self) -> None:
        self._asked = False
        self._handler = gevent.signal_handler(signal.SIGINT, self._ask)

    def asked(self) -> bool:
        """Whether somebody pressed it."""
        return self._asked

    def _ask(self) -> None:
        self._asked = True
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
    sent = bodies(images, options.payload, options.images_per_request, options.seed)
    measured = Measured([], [], images, sent, [])
    services = [Service(url, label) for label, url in options.urls]
    for service in services:
        description = service.describe()
        arms, excluded = choose(service, description, options.variants)
        measured.arms += arms
        measured.excluded += excluded
        measured.servers.append({"label": service.label, "url": service.url, **description})
    if not measured.arms:
        reasons = "; ".join(f"{e.name}: {e.reason}" for e in measured.excluded) or "the service offers none"
        raise NothingToMeasure(f"no variant can be measured ({reasons})")
    _play(options, measured, {service.url: service for service in services})
    measured.seconds = time.perf_counter() - began
    return measured


def _play(options: Options, measured: Measured, services: dict[str, Service]) -> None:
    drive = Drive(options, measured, services, Interrupt().asked)
    for excluded in measured.excluded:
        drive.progress.say(f"left out: {excluded.name} ({excluded.reason})")
    generator = _generator(options, measured, list(services))
    try:
        generator.start()
        drive.play(generator)
        measured.problems += restarted(measured, services)
    except Stopped:
        measured.partial = True
    except (ServerError, GeneratorLost) as error:
        measured.problems.append(f"the run could not go on: {error}")
        measured.partial = True
    finally:
        drive.progress.clear()
        generator.stop()


def _generator(options: Options, measured: Measured, urls: list[str]) -> Generator | Fleet:
    users = users_needed(options, len(measured.arms))
    if options.processes == 1:
        return Generator(measured.bodies, urls, users, options.timeout)
    return Fleet(measured.bodies, urls, users, options.timeout, options.processes)


def restarted(measured: Measured, services: dict[str, Service]) -> list[str]:
    """Which arms are not what they were at the start."""
    descriptions = {url: service.describe()["variants"] for url, service in services.items()}
    now = {(url, str(card["name"])): card for url, cards in descriptions.items() for card in cards}
    cards = [(arm, now.get((arm.url, arm.variant), {})) for arm in measured.arms]
    changed = [arm for arm, card in cards if any(card.get(key) != arm.card.get(key) for key in WATCHED)]
    return [f"{arm.name} was restarted or replaced during the run" for arm in changed]


def users_needed(options: Options, arms: int) -> int:
    """The most users that a round keeps busy; open workloads need enough that no arrival waits for one."""
    together = arms if options.contended else 1
    closed = max((w.concurrency or 0 for w in options.workloads), default=1) * together
    return max(closed, options.users if options.slo or any(w.rate for w in options.workloads) else 1)

"""The load generator: locust's environment and runner, which live from the first round to the last."""

import gc
import logging
import random
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import gevent
from gevent.event import Event
from locust.env import Environment

from loadtest.client.images import Bodies
from loadtest.client.users import Desk, LoadUser, Turn
from loadtest.plan import Arm, Round, Workload
from loadtest.records import Request, Stretch

HEARTBEAT = 0.02
"""Seconds between two checks of how late this process wakes up."""
CONNECT_TIMEOUT = 60.0
"""Seconds that all users together may take to connect."""


@dataclass
class _Running:
    """The round that is being played; its users and the generator add to it."""

    opened: float
    closed: float
    requests: dict[str, list[Request]]
    lateness: list[float] = field(default_factory=list)
    starved: int = 0
    outstanding: int = 0
    """Turns that were handed out and have not ended."""
    idle: Any = field(default_factory=Event)
    """Set when no turn is outstanding."""


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect garbage first and then not until the end, so that no collection delays a request.

    A frozen object is not looked at again, so the collection is short however many records there are. A request leaves
    no garbage that needs the collector.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


class Generator:
    """Plays rounds with users that are started, and connected, once."""

    def __init__(self, bodies: Bodies, urls: Sequence[str], users: int, timeout: float) -> None:
        logging.getLogger().addHandler(logging.NullHandler())  # or locust's warnings set up a handler of their own
        logging.getLogger("locust").setLevel(logging.CRITICAL)
        self._timeout = timeout
        self._users = users
        self._desk = Desk(bodies)
        self._sequences: dict[tuple[Arm, Workload], count[int]] = {}
        self._runner = Environment(user_classes=[self._user_class(tuple(urls))]).create_local_runner()

    def _user_class(self, urls: tuple[str, ...]) -> type[LoadUser]:
        class User(LoadUser):
            host = urls[0]
            desk = self._desk
            network_timeout = self._timeout
            connection_timeout = self._timeout

        User.urls = urls
        return User

    def start(self) -> None:
        """Start every user and wait until all are connected and idle, for CONNECT_TIMEOUT at most."""
        self._runner.start(self._users, spawn_rate=self._users)
        deadline = time.perf_counter() + CONNECT_TIMEOUT
        while self._desk.free() < self._users and time.perf_counter() < deadline:
            gevent.sleep(0.01)

    def stop(self) -> None:
        """Stop every user, also those that still wait for an answer."""
        self._runner.quit()

    def rewind(self) -> None:
        """Let every arm begin with the first request again."""
        self._sequences.clear()

    @uncollected()
    def play(self, planned: Round) -> Stretch:
        """Play one round to its last answer."""
        began = time.perf_counter()
        cpu = time.process_time()
        opened = began + planned.settle
        running = _Running(opened, opened + planned.seconds, {arm.name: [] for arm in planned.arms})
        turns = [self._turn(arm, planned.workload, running) for arm in planned.arms]
        rng = random.Random(planned.seed)
        if planned.workload.rate is None:
            rng.shuffle(turns)
            self._closed(turns, planned.workload.concurrency or 1, running)
        else:
            self._open(turns, planned.workload.rate, began, rng, running)
        used = (time.process_time() - cpu) / (time.perf_counter() - began)
        self._drain(running)
        return Stretch(running.opened, running.closed, running.requests, running.lateness, running.starved, used)

    def _turn(self, arm: Arm, workload: Workload, running: _Running) -> Turn:
        sequence = self._sequences.setdefault((arm, workload), count())

        def done(turn: Turn, request: Request) -> Turn | None:
            running.requests[arm.name].append(request)
            if turn.intended is None and request.end < running.closed:
                return turn
            running.outstanding -= 1
            if running.outstanding <= 0:
                running.idle.set()
            return None

        return Turn(arm, None, sequence.__next__, done)

    def _give(self, turn: Turn, running: _Running) -> None:
        running.outstanding += 1
        running.idle.clear()
        running.starved += not self._desk.give(turn)

    def _closed(self, turns: list[Turn], concurrency: int, running: _Running) -> None:
        for _ in range(concurrency):
            for turn in turns:
                self._give(turn, running)
        while (now := time.perf_counter()) < running.closed:
            wake = min(now + HEARTBEAT, running.closed)
            gevent.sleep(wake - now)
            running.lateness.append(time.perf_counter() - wake)

    def _open(self, turns: list[Turn], rate: float, began: float, rng: random.Random, running: _Running) -> None:
        """Hand out turns at the times of Poisson arrivals: an independent stream at `rate` for each arm.

        The streams are drawn as one of their summed rate, whose arrivals each belong to a random arm.
        """
        rate *= len(turns)
        due = began + rng.expovariate(rate)
        while due < running.closed:
            if (wait := due - time.perf_counter()) > 0:
                gevent.sleep(wait)
            running.lateness.append(max(0.0, time.perf_counter() - due))
            self._give(rng.choice(turns)._replace(intended=due), running)
            due += rng.expovariate(rate)
        gevent.sleep(max(0.0, running.closed - time.perf_counter()))

    def _drain(self, running: _Running) -> None:
        if running.outstanding:
            running.idle.wait(self._timeout + 1.0)
        self._desk.clear()

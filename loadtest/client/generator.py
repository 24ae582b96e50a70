"""The load generator: locust's environment and runner, kept alive from the first round to the last."""

import logging
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import count

import gevent
from gevent.event import Event
from locust.env import Environment

from loadtest.client.images import Bodies
from loadtest.client.users import Desk, LoadUser, Turn
from loadtest.plan import Arm, Round, Workload
from loadtest.records import Request

HEARTBEAT = 0.02
"""Seconds between two looks at how late this process wakes up."""
CONNECT_TIMEOUT = 60.0


@dataclass
class Stretch:
    """The round being played: what its users did, and whether they may go on."""

    opened: float
    closed: float
    requests: dict[str, list[Request]]
    lateness: list[float] = field(default_factory=list)
    starved: int = 0
    outstanding: int = 0

    def __post_init__(self) -> None:
        self.idle = Event()

    def __reduce__(self) -> tuple[type["Stretch"], tuple[object, ...]]:
        """Over to another process without the event, which belongs to this one's loop."""
        return Stretch, (self.opened, self.closed, self.requests, self.lateness, self.starved)


class Generator:
    """Plays rounds with users that are started, and connected, once.

    As number `index` of several `processes` it plays an equal share of each.
    """

    def __init__(
        self, bodies: Bodies, urls: Sequence[str], users: int, timeout: float, index: int = 0, processes: int = 1
    ) -> None:
        logging.getLogger().addHandler(logging.NullHandler())  # or locust's warnings set up a handler of their own
        logging.getLogger("locust").setLevel(logging.CRITICAL)
        self.timeout = timeout
        self.users = users
        self.index, self.processes = index, processes
        self._desk = Desk(bodies)
        self._sequences: dict[tuple[Arm, Workload], count[int]] = {}
        self._runner = Environment(user_classes=[self._user_class(tuple(urls))]).create_local_runner()

    def _user_class(self, urls: tuple[str, ...]) -> type[LoadUser]:
        class User(LoadUser):
            host = urls[0]
            desk = self._desk
            network_timeout = self.timeout
            connection_timeout = self.timeout

        User.urls = urls
        return User

    def start(self) -> None:
        """Start every user and wait until all are connected and idle."""
        self._runner.start(self.users, spawn_rate=self.users)
        deadline = time.perf_counter() + CONNECT_TIMEOUT
        while self._desk.free() < self.users and time.perf_counter() < deadline:
            gevent.sleep(0.01)

    def stop(self) -> None:
        """Stop every user, also those that still wait for an answer."""
        self._runner.quit()

    def rewind(self) -> None:
        """Let every arm begin with the first request again."""
        self._sequences.clear()

    def play(self, planned: Round, began: float | None = None) -> tuple[Stretch, float]:
        """Play one round to its last answer: what happened, and this process's CPU seconds a second meanwhile.

        `began` is the reading of `time.perf_counter` at which the round begins, now if None.
        """
        began = began or time.perf_counter()
        gevent.sleep(max(0.0, began - time.perf_counter()))
        cpu = time.process_time()
        opened = began + planned.settle
        stretch = Stretch(opened, opened + planned.seconds, {arm.name: [] for arm in planned.arms})
        turns = [self._turn(arm, planned.workload, stretch) for arm in planned.arms]
        rng = random.Random(planned.seed * self.processes + self.index)
        if planned.workload.rate is None:
            rng.shuffle(turns)
            self._closed(turns, self._share(planned.workload.concurrency or 1), stretch)
        else:
            self._open(turns, planned.workload.rate / self.processes, began, rng, stretch)
        used = (time.process_time() - cpu) / (time.perf_counter() - began)
        self._drain(stretch)
        return stretch, used

    def _share(self, users: int) -> int:
        return users // self.processes + (self.index < users % self.processes)

    def _turn(self, arm: Arm, workload: Workload, stretch: Stretch) -> Turn:
        sequence = self._sequences.setdefault((arm, workload), count(self.index, self.processes))

        def done(turn: Turn, request: Request) -> Turn | None:
            stretch.requests[arm.name].append(request)
            if turn.intended is None and request.end < stretch.closed:
                return turn
            stretch.outstanding -= 1
            if stretch.outstanding <= 0:
                stretch.idle.set()
            return None

        return Turn(arm, None, sequence.__next__, done)

    def _give(self, turn: Turn, stretch: Stretch) -> None:
        stretch.outstanding += 1
        stretch.idle.clear()
        stretch.starved += not self._desk.give(turn)

    def _closed(self, turns: list[Turn], concurrency: int, stretch: Stretch) -> None:
        for _ in range(concurrency):
            for turn in turns:
                self._give(turn, stretch)
        while (now := time.perf_counter()) < stretch.closed:
            wake = min(now + HEARTBEAT, stretch.closed)
            gevent.sleep(wake - now)
            stretch.lateness.append(time.perf_counter() - wake)

    def _open(self, turns: list[Turn], rate: float, began: float, rng: random.Random, stretch: Stretch) -> None:
        """Poisson arrivals at `rate` for each turn, independent of each other: together, each is a random turn's."""
        rate *= len(turns)
        due = began + rng.expovariate(rate)
        while due < stretch.closed:
            if (wait := due - time.perf_counter()) > 0:
                gevent.sleep(wait)
            stretch.lateness.append(max(0.0, time.perf_counter() - due))
            self._give(rng.choice(turns)._replace(intended=due), stretch)
            due += rng.expovariate(rate)
        gevent.sleep(max(0.0, stretch.closed - time.perf_counter()))

    def _drain(self, stretch: Stretch) -> None:
        if stretch.outstanding:
            stretch.idle.wait(self.timeout + 1.0)
        self._desk.clear()

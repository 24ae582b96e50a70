"""The load generator of one process: locust's environment and runner, which live from the first round to the last."""

import logging
import time
from collections.abc import Iterable, Iterator, Mapping

import gevent
from locust.env import Environment

from loadtest.client.rounds import Rounds, wake_on_time
from loadtest.client.users import Desk, LoadUser
from loadtest.client.wire import Wire
from loadtest.plan import Round
from loadtest.records import Stretch

CONNECT_TIMEOUT = 60.0
"""Seconds that all users together may take to connect."""


def silence_locust() -> None:
    """Keep locust from logging, and from setting up handlers of its own."""
    logging.getLogger().addHandler(logging.NullHandler())
    logging.getLogger("locust").setLevel(logging.CRITICAL)


def wait_for(desk: Desk, users: int) -> None:
    """Wait until so many users are connected and idle, for CONNECT_TIMEOUT at most."""
    deadline = time.perf_counter() + CONNECT_TIMEOUT
    while desk.free() < users and time.perf_counter() < deadline:
        gevent.sleep(0.01)


class Generator:
    """Plays rounds with users that are started, and connected, once."""

    def __init__(self, wires: Mapping[str, Wire], users: int, timeout: float) -> None:
        silence_locust()
        self._users, self._desk = users, Desk()
        self._rounds = Rounds(self._desk, timeout)

        class Sender(LoadUser):
            pass

        Sender.desk, Sender.wires, Sender.timeout = self._desk, wires, timeout
        self._runner = Environment(user_classes=[Sender]).create_local_runner()

    @property
    def workers(self) -> tuple[str, ...]:
        """The names of other processes that send the load: there are none."""
        return ()

    def start(self) -> None:
        """Start every user and wait until all are connected and idle."""
        wake_on_time()
        self._runner.start(self._users, spawn_rate=self._users)
        wait_for(self._desk, self._users)

    def stop(self) -> None:
        """Stop every user, also those that still wait for an answer."""
        self._runner.quit()

    def rewind(self) -> None:
        """Let every arm begin with the first request again."""
        self._rounds.rewind()

    def play(self, planned: Round) -> Stretch:
        """Play one round to its last answer."""
        return self._rounds.play(planned)

    def play_on(self, rounds: Iterable[Round]) -> Iterator[tuple[Round, Stretch]]:
        """Play rounds of open workloads on end, and yield each one in its turn once its last answer is there."""
        return self._rounds.play_on(rounds)

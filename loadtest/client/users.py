"""The locust users: each sends the request of its turn, keeps the raw times, and takes the next turn at once."""

import time
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from gevent import sleep
from gevent.event import AsyncResult
from locust import User, task

from loadtest.client.answers import lost
from loadtest.client.connection import Connection
from loadtest.client.wire import Wire
from loadtest.plan import Arm
from loadtest.records import NEVER_SENT, Request


class Turn(NamedTuple):
    """The right to send one request. In a closed workload `intended` is None: a request is due when it is sent."""

    number: int
    """Tells the turns of a round apart."""
    arm: Arm
    intended: float | None
    sequence: Callable[[], int]
    done: Callable[["Turn", Request], "Turn | None"]
    """Keeps the record of the request. Returns the user's next turn, or None if the user has to wait for one."""


class Desk:
    """Hands turns to users. The user that waited least gets the next turn, so that few connections are in use."""

    def __init__(self) -> None:
        self._waiting: list[AsyncResult[Turn]] = []
        self._backlog: deque[Turn] = deque()

    def give(self, turn: Turn) -> bool:
        """Hand over a turn; return False if no user was free, so that the turn waits."""
        if self._waiting:
            self._waiting.pop().set(turn)
            return True
        self._backlog.append(turn)
        return False

    def take(self) -> Turn:
        """Return the next turn, as soon as there is one."""
        if self._backlog:
            return self._backlog.popleft()
        waiter: AsyncResult[Turn] = AsyncResult()
        self._waiting.append(waiter)
        turn: Turn = waiter.get()
        return turn

    def free(self) -> int:
        """Return how many users wait for a turn."""
        return len(self._waiting)

    def clear(self) -> list[Turn]:
        """Drop the turns that no user took, and return them."""
        dropped = list(self._backlog)
        self._backlog.clear()
        return dropped


class LoadUser(User):
    """A user that sends labelled images to the arm of its turn, over connections that stay open."""

    abstract = True
    desk: Desk
    wires: Mapping[str, Wire]
    """How each arm is asked, by its name."""
    timeout: float
    """Seconds that a request may take."""

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._connections = {wire.url: Connection(wire.url, self.timeout) for wire in self.wires.values()}

    def on_start(self) -> None:
        """Connect before anything is measured."""
        for wire in {wire.url: wire for wire in self.wires.values()}.values():
            self._connections[wire.url].exchange(wire.greeting())

    def on_stop(self) -> None:
        """Close the connections."""
        for connection in self._connections.values():
            connection.close()

    @task
    def predict(self) -> None:
        """Send one request after the other until locust stops the user. A task for each of them takes longer.

        A request may end without a wait, for example where nobody listens, so the others get their turn after it.
        """
        turn: Turn | None = None
        while True:
            turn = turn or self.desk.take()
            turn = turn.done(turn, self._send(turn))
            sleep(0)

    def _send(self, turn: Turn) -> Request:
        """Send the request of a turn, unless it has waited for a free user until its timeout."""
        if turn.intended is not None and (now := time.perf_counter()) > turn.intended + self.timeout:
            return lost(turn.intended, now, NEVER_SENT)
        sequence, wire = turn.sequence(), self.wires[turn.arm.name]
        answer = self._connections[wire.url].exchange(wire.request(sequence))
        return wire.record(sequence, turn.intended, answer)

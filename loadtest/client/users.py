"""The locust users: each sends the request of its turn, keeps the raw times, and takes the next turn at once."""

import json
import math
import ssl
import time
from collections import deque
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple

from gevent import Timeout
from gevent.event import AsyncResult
from locust import FastHttpUser, task

from loadtest.client.images import Bodies
from loadtest.client.server import credentials
from loadtest.plan import Arm
from loadtest.records import NEVER_SENT, Request

EMPTY = Request(-1, 0.0, 0.0, 0.0, 0, "", (), math.nan, math.nan, math.nan, math.nan)
"""A record without an answer. Its sequence -1 stands for no image."""


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

    def __init__(self, bodies: Bodies) -> None:
        self.bodies = bodies
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


def lost(intended: float, now: float, error: str) -> Request:
    """Return the record of a request that was not sent, or whose answer nobody waits for any more."""
    return EMPTY._replace(intended=intended, start=now, end=now, error=error)


class LoadUser(FastHttpUser):
    """A user that sends labelled images to the arm of its turn, over connections that stay open."""

    abstract = True
    insecure = False
    ssl_context_factory = staticmethod(cache(ssl.create_default_context))
    """The context verifies certificates, as the client of `/variants` does; all users share it."""
    desk: Desk
    urls: tuple[str, ...]

    def __init__(self, environment: Any) -> None:
        super().__init__(environment)
        self._turn: Turn | None = None
        self._credentials = credentials()

    def on_start(self) -> None:
        """Connect before anything is measured."""
        for url in self.urls:
            self.client.get(url + "/health/live", name="connect")

    def on_stop(self) -> None:
        """Close the connections."""
        self.client.client.close()

    @task
    def predict(self) -> None:
        """Send one request."""
        turn = self._turn or self.desk.take()
        self._turn = turn.done(turn, self._send(turn))

    def _send(self, turn: Turn) -> Request:
        """Send the request of a turn, unless it has waited for a free user until its timeout."""
        if turn.intended is not None and (now := time.perf_counter()) > turn.intended + self.network_timeout:
            return lost(turn.intended, now, NEVER_SENT)
        sequence = turn.sequence()
        bodies = self.desk.bodies
        url = f"{turn.arm.url}/predict/{turn.arm.variant}"
        headers = {"Content-Type": bodies.content_type} | self._credentials
        body: Any = bodies.bodies[sequence % len(bodies)]  # locust says str, geventhttpclient takes bytes
        start = time.perf_counter()
        with self.client.post(url, name=turn.arm.name, data=body, headers=headers, catch_response=True) as response:
            end = time.perf_counter()
            status = int(response.status_code or 0)
            request = _request(sequence, status, response.content, response.request_meta.get("exception"))
            if request.error:
                response.failure(request.error)
            else:
                response.success()
        return request._replace(start=start, end=end, intended=start if turn.intended is None else turn.intended)


def _request(sequence: int, status: int, content: bytes | None, failure: object) -> Request:
    """Return the answer as a record without the times of the request."""
    empty = EMPTY._replace(sequence=sequence, status=status)
    if status != 200 or failure:
        return empty._replace(error=_error(status, content, failure))
    try:
        answer = json.loads(content or b"")
        timing = answer.get("timing") or {}
        return empty._replace(
            answer=tuple(int(prediction["class_index"]) for prediction in answer["predictions"]),
            batch_size=_number(answer.get("batch_size")),
            server_total=_number(timing.get("total_seconds")),
            server_queue=_number(timing.get("queue_seconds")),
            server_inference=_number(timing.get("inference_seconds")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return empty._replace(error="200 with an answer that cannot be read")


def _number(stated: Any) -> float:
    """Return a number that an answer states; NaN if it states none or an infinite one."""
    number = math.nan if stated is None else float(stated)
    return number if math.isfinite(number) else math.nan


def _error(status: int, content: bytes | None, failure: object) -> str:
    """Return words that are the same for like errors: status and title of the problem, or why there is no answer.

    geventhttpclient wraps a timeout in RetriesExceeded. With a failure, a status of 200 belongs to an answer whose body
    broke off.
    """
    cause = getattr(failure, "original", None) or failure
    if isinstance(cause, TimeoutError | Timeout):
        return "timeout"
    if status in (0, 200):
        return f"no answer: {type(cause).__name__}"
    try:
        return f"{status} {json.loads(content or b'')['title']}"
    except (ValueError, KeyError, TypeError):
        return f"{status}"

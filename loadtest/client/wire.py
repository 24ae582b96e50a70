"""The way in which an arm is asked: the bytes of its requests, and the reading of its answers."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

from loadtest.client.answers import predictions, record
from loadtest.client.connection import Answer, head
from loadtest.client.images import Bodies
from loadtest.client.server import credentials
from loadtest.client.tensors import Output
from loadtest.plan import Arm
from loadtest.records import Request

LIVE = "/health/live"
"""The route of this project's service with which users connect."""


@dataclass(frozen=True)
class Wire:
    """The requests and answers of one arm. Request `n` sends `bodies[n % len(bodies)]`."""

    url: str
    """The base URL of the service; users keep one connection for each of them."""
    live: str
    """The path that users connect with before anything is measured."""
    path: str
    """The path of the requests."""
    headers: tuple[tuple[str, str], ...]
    """Headers of every request besides the content type, the length and the key."""
    content_types: Sequence[str]
    """The content type of each body."""
    bodies: Sequence[bytes]
    output: Output | None = None
    """The tensor that the answers hold; None for answers of this project's service."""

    @cached_property
    def _headers(self) -> tuple[tuple[str, str], ...]:
        """The headers of every request. The key of the service comes from the environment of this process."""
        return (*credentials().items(), *self.headers)

    def request(self, sequence: int) -> bytes:
        """Return the bytes of a request."""
        index = sequence % len(self.bodies)
        body = self.bodies[index]
        headers = (*self._headers, ("Content-Type", self.content_types[index]))
        return b"%bContent-Length: %d\r\n\r\n%b" % (head("POST", self.url + self.path, headers), len(body), body)

    def greeting(self) -> bytes:
        """Return the bytes of the request that users connect with."""
        return head("GET", self.url + self.live, tuple(credentials().items())) + b"\r\n"

    def record(self, sequence: int, intended: float | None, answer: Answer) -> Request:
        """Return the record of a request that was due at `intended`, or when it was sent if that is None."""
        due = answer.start if intended is None else intended
        return record(sequence, due, answer, self.output.read if self.output else predictions)


def predict(arm: Arm, bodies: Bodies) -> Wire:
    """Return the wire of an arm of this project's service."""
    return Wire(arm.url, LIVE, f"/predict/{arm.variant}", (), bodies.content_types, bodies.bodies)

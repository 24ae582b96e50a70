"""A light HTTP client that sends one request over and over: at random times (open), or after each answer (closed).

One process with uvloop sends some thousand requests a second. It holds a connection per request under way, and uses
idle ones first.
"""

import asyncio
import random
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

HEAD_END = b"\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)", re.IGNORECASE)
RETRY_AFTER = re.compile(rb"\r\nretry-after: *(\d+)", re.IGNORECASE)
LOST = 0
"""The status of a request whose connection ended without an answer."""


@dataclass(frozen=True, slots=True)
class Reply:
    """What became of one request."""

    due: float
    """A reading of `time.perf_counter()` when the request was to be sent."""
    seconds: float
    """From then to the end of the answer, so that a late generator counts as latency."""
    status: int
    """The HTTP status, or LOST."""
    retry_after: int
    """The header of the answer in seconds; 0 if there is none."""


class Target:
    """A request to one address, with the connections that it goes through. `replies` has all that ended."""

    def __init__(self, url: str, body: bytes, content_type: str) -> None:
        parts = urlsplit(url)
        self.address = (parts.hostname or "", parts.port or 80)
        self.request = (
            f"POST {parts.path} HTTP/1.1\r\nHost: {parts.netloc}\r\nContent-Type: {content_type}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n"
        ).encode() + body
        self.replies: list[Reply] = []
        self.under_way = 0
        self._idle: list[_Connection] = []
        self._news = asyncio.Event()

    async def ask(self) -> Reply:
        """Send the request now and return its reply."""
        reply: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        await self.send(time.perf_counter(), reply.set_result)
        return await reply

    async def send(self, due: float, on_reply: Callable[[Reply], None]) -> None:
        """Send the request that was due at this time over an idle connection or a new one."""
        if self.sent_at_once(due, on_reply):
            return
        self.under_way += 1
        try:
            loop = asyncio.get_running_loop()
            _, connection = await loop.create_connection(lambda: _Connection(self), *self.address)
        except OSError:
            self.ended(None, Reply(due, time.perf_counter() - due, LOST, 0), on_reply)
            return
        connection.send(due, on_reply)

    def sent_at_once(self, due: float, on_reply: Callable[[Reply], None]) -> bool:
        """Send the request over an idle connection. Return False if there is none."""
        while self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                self.under_way += 1
                connection.send(due, on_reply)
                return True
        return False

    def ended(self, connection: "_Connection | None", reply: Reply, on_reply: Callable[[Reply], None]) -> None:
        """Keep the reply and, if its connection goes on, the connection."""
        self.under_way -= 1
        self.replies.append(reply)
        self._news.set()
        if connection is not None:
            self._idle.append(connection)
        on_reply(reply)

    def close(self) -> None:
        """Close the connections that are idle."""
        while self._idle:
            self._idle.pop().close()

    async def settle(self) -> None:
        """Wait until no request is under way."""
        while self.under_way:
            self._news.clear()
            await self._news.wait()


class _Connection(asyncio.Protocol):
    """A connection of a target: one request at a time."""

    def __init__(self, target: Target) -> None:
        self.target = target
        self.is_open = True
        self._due = 0.0
        self._on_reply: Callable[[Reply], None] | None = None
        self._answer = b""

    def connection_made(self, transport: Any) -> None:
        self._transport: asyncio.WriteTransport = transport

    def send(self, due: float, on_reply: Callable[[Reply], None]) -> None:
        self._due, self._on_reply, self._answer = due, on_reply, b""
        self._transport.write(self.target.request)

    def close(self) -> None:
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._answer += data
        head, end, body = self._answer.partition(HEAD_END)
        length = LENGTH.search(head)
        if end and length and len(body) >= int(length.group(1)):
            again = RETRY_AFTER.search(head)
            self._end(int(head[9:12]), int(again.group(1)) if again else 0)

    def connection_lost(self, error: Exception | None) -> None:
        self.is_open = False
        self._end(LOST, 0)

    def _end(self, status: int, retry_after: int) -> None:
        on_reply, self._on_reply = self._on_reply, None
        if on_reply is not None:
            reply = Reply(self._due, time.perf_counter() - self._due, status, retry_after)
            self.target.ended(self if self.is_open else None, reply, on_reply)


async def arrive(target: Target, rate: float, seconds: float, seed: int = 0) -> list[Reply]:
    """Send `rate` requests a second at Poisson times for so long, and return their replies once all ended."""
    await sent(target, rate, seconds, seed)
    await target.settle()
    return target.replies


async def sent(target: Target, rate: float, seconds: float, seed: int = 0) -> None:
    """Send as `arrive` does, and return when the last request is sent."""
    rng, tasks = random.Random(seed), set()
    due = began = time.perf_counter()
    while (due := due + rng.expovariate(rate)) < began + seconds:
        if (wait := due - time.perf_counter()) > 0:
            await asyncio.sleep(wait)
        if not target.sent_at_once(due, _ignore):
            task = asyncio.create_task(target.send(due, _ignore))
            tasks.add(task)
            task.add_done_callback(tasks.discard)
    await asyncio.gather(*tasks)


def _ignore(reply: Reply) -> None:
    """Do nothing: the target keeps the reply."""


async def circle(target: Target, clients: int, seconds: float) -> list[Reply]:
    """Let so many clients send for so long, each as soon as it has its answer, and return the replies."""
    until = time.perf_counter() + seconds

    async def client() -> None:
        while time.perf_counter() < until:
            await target.ask()

    await asyncio.gather(*(client() for _ in range(clients)))
    return target.replies


def milliseconds(replies: list[Reply], percent: int) -> float:
    """Return a percentile of the times of the requests that were answered with 200; at least two are needed."""
    return 1000 * statistics.quantiles([r.seconds for r in replies if r.status == 200], n=100)[percent - 1]

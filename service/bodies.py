"""Request bodies on their way in: bounded in bytes, in time and in what all requests together hold."""

import asyncio
import time
import zlib
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

from starlette.requests import ClientDisconnect, Request

from common import machine
from service.deadline import CLIENTS, Deadline
from service.errors import ServiceError
from service.settings import Settings

ENCODINGS = ("identity", "gzip", "deflate")
MOST_INFLATED = 1032
"""Most bytes that one byte of DEFLATE can become (zlib's technical details)."""
DECODERS = ThreadPoolExecutor(1 + machine.available_cores(), "decode")
"""Threads that inflate and decode. Each may need memory for several copies of the largest image, so they are few: one
more than cores, so that one slow image does not stop all others."""
T = TypeVar("T")


class Budget:
    """The bytes that the bodies of all requests together may hold until they are decoded."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """Open one request's share, which is given back at the end of the block.

        The block gets a function that adds bytes to the share, or gives some back if their number is negative. The
        function raises ServiceError: `overloaded`.
        """
        mine = 0

        def grow(size: int) -> None:
            nonlocal mine
            if self.held + size > self.most:
                detail = f"the requests that are arriving hold {self.held} bytes, at most {self.most} may be held"
                raise ServiceError("overloaded", detail)
            self.held += size
            mine += size

        try:
            yield grow
        finally:
            self.held -= mine


@dataclass(frozen=True, slots=True)
class Arrival:
    """The limits that one body meets while it arrives."""

    settings: Settings
    deadline: Deadline
    grow: Callable[[int], None]
    """Adds bytes to the request's share of the budget."""


@asynccontextmanager
async def received(request: Request, settings: Settings, budget: Budget, deadline: Deadline) -> AsyncIterator[bytes]:
    """Give the block the whole body, without its Content-Encoding. The budget counts it until the block ends.

    Raises:
        ServiceError: `unsupported_type`, `too_large`, `too_slow`, `client_deadline`, `client_closed`, `overloaded` or
            `malformed`, as soon as it is known.
    """
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ENCODINGS:
        raise ServiceError("unsupported_type", f"Content-Encoding: expected gzip, deflate or none, got {encoding!r}")
    with budget.share() as grow:
        arrival = Arrival(settings, deadline, grow)
        body = await _read(request, arrival)
        if encoding != "identity":
            body = await _inflate(body, encoding, arrival)
        yield body


async def _read(request: Request, arrival: Arrival) -> bytes:
    limit, arriving = arrival.settings.max_body_bytes, _arriving(arrival)
    too_large = ServiceError("too_large", f"the body may have at most {limit} bytes")
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
    chunks, size = [], 0
    try:
        with arriving.kept():
            async with asyncio.timeout(arriving.left):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > limit:
                        raise too_large
                    arrival.grow(len(chunk))
                    chunks.append(chunk)
    except ClientDisconnect:
        raise ServiceError("client_closed", "the client went away while it sent the body") from None
    return b"".join(chunks)


def _arriving(arrival: Arrival) -> Deadline:
    """Return the deadline of the body's arrival.

    If the service's own timeout passes while the body arrives, the answer is 408, not 504: the upload caused it.
    """
    slow = Deadline(time.perf_counter(), arrival.settings.receive_timeout, "too_slow", "the body did not arrive")
    deadline = arrival.deadline
    if deadline.word != CLIENTS:
        deadline = Deadline(deadline.began, deadline.seconds, slow.word, slow.what)
    return slow.or_sooner(deadline)


async def _inflate(body: bytes, encoding: str, arrival: Arrival) -> bytes:
    """Return the body without its Content-Encoding. Its largest possible size is reserved before it is inflated."""
    limit = arrival.settings.max_body_bytes
    most = min(limit, MOST_INFLATED * len(body))
    arrival.grow(most)
    work = partial(_inflated, body, encoding, limit)
    inflated = await in_thread(work, decoding(arrival.settings, arrival.deadline))
    arrival.grow(len(inflated) - most - len(body))
    return inflated


def _inflated(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo the Content-Encoding, never beyond `limit` bytes.

    Raises:
        ServiceError: `malformed` or `too_large`.
    """
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: the header says whether it is gzip or zlib
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise ServiceError("malformed", f"the body is not {encoding}") from None
    if len(inflated) > limit:
        raise ServiceError("too_large", f"the body may have at most {limit} bytes, also once it is decompressed")
    if not inflater.eof or inflater.unused_data:
        raise ServiceError("malformed", f"the {encoding} body is truncated, or more follows it")
    return inflated


def decoding(settings: Settings, deadline: Deadline) -> Deadline:
    """Return the deadline of decoding that begins now: `decode_timeout`, or the request's if that is sooner."""
    own = Deadline(time.perf_counter(), settings.decode_timeout, what="the images could not be decoded")
    return deadline.or_sooner(own)


async def in_thread(work: Callable[[], T], deadline: Deadline) -> T:
    """Return the result of `work`, which runs in one of the DECODERS.

    Raises:
        ServiceError: the deadline's, and what `work` raises.
    """
    with deadline.kept():
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(DECODERS, work), deadline.left)

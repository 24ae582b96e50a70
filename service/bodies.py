"""Request bodies on their way in: bounded in bytes, in time and in what all requests together hold."""

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass

from starlette.requests import ClientDisconnect, Request

from service.deadline import CLIENTS, Deadline
from service.decoding import ENCODINGS, HEADER_LENGTH, IDENTITY, Received
from service.errors import ServiceError
from service.settings import Settings

SMALL_BYTES = 65_536
"""Bodies up to this size, by their Content-Length, may use the part of the budget that is kept for them."""
KEPT_SHARE = 8
"""An eighth of the budget is kept for small bodies: large ones, however slowly they come, cannot keep them out."""


class Budget:
    """The bytes that the bodies of all requests together may hold until they are decoded."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    @contextmanager
    def share(self, is_small: bool) -> Iterator[Callable[[int], None]]:
        """Open one request's share, which is given back at the end of the block. Small bodies may use all of it.

        The block gets a function that adds bytes to the share, or gives some back if their number is negative. The
        function raises ServiceError: `overloaded`.
        """
        mine = 0
        most = self.most if is_small else self.most - self.most // KEPT_SHARE

        def grow(size: int) -> None:
            nonlocal mine
            if self.held + size > most:
                detail = f"the requests that are arriving hold {self.held} bytes, at most {most} may be held"
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
async def received(request: Request, settings: Settings, budget: Budget, deadline: Deadline) -> AsyncIterator[Received]:
    """Give the block the whole body as it was sent. The budget counts it until the block ends.

    Raises:
        ServiceError: `unsupported_type`, `too_large`, `too_slow`, `client_deadline`, `client_closed` or `overloaded`,
            as soon as it is known.
    """
    headers = request.headers
    encoding = headers.get("content-encoding", IDENTITY).strip().lower()
    if encoding not in ENCODINGS:
        raise ServiceError("unsupported_type", f"Content-Encoding: expected gzip, deflate or none, got {encoding!r}")
    with budget.share(is_small=int(headers.get("content-length", SMALL_BYTES + 1)) <= SMALL_BYTES) as grow:
        body = await _read(request, Arrival(settings, deadline, grow))
        yield Received(body, headers.get("content-type", ""), encoding, headers.get(HEADER_LENGTH))


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

"""Request bodies on their way in: bounded in bytes, in time and in what all requests together hold."""

import asyncio
import time
from collections.abc import Mapping

from starlette.requests import Request

from service import decoding
from service.deadline import CLIENTS, Deadline
from service.decoding import ENCODINGS, IDENTITY, Received
from service.errors import ServiceError
from service.settings import Settings

SMALL_BYTES = 65_536
"""Bodies up to this size, by their Content-Length, may use the part of the budget that is kept for them."""
LENGTH = b"content-length"
HEADER_LENGTH = decoding.HEADER_LENGTH.lower().encode()
KEPT_SHARE = 8
"""An eighth of the budget is kept for small bodies: large ones, however slowly they come, cannot keep them out."""


class Budget:
    """The bytes that the bodies of all requests together may hold until they are decoded."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.held = 0

    def share(self, headers: Mapping[bytes, bytes]) -> "Share":
        """Return the share of the request with these headers, for a `with` block. Small bodies may use all of it."""
        is_small = int(headers.get(LENGTH, SMALL_BYTES + 1)) <= SMALL_BYTES
        return Share(self, self.most if is_small else self.most - self.most // KEPT_SHARE)


class Share:
    """The bytes of one request in a Budget. The end of the `with` block gives them back."""

    __slots__ = ("_budget", "_held", "_most")

    def __init__(self, budget: Budget, most: int) -> None:
        self._budget = budget
        self._most = most
        self._held = 0

    def __enter__(self) -> "Share":
        return self

    def __exit__(self, *_: object) -> None:
        self._budget.held -= self._held

    def grow(self, size: int) -> None:
        """Add bytes to the share.

        Raises:
            ServiceError: `overloaded`.
        """
        held = self._budget.held
        if held + size > self._most:
            detail = f"the requests that are arriving hold {held} bytes, at most {self._most} may be held"
            raise ServiceError("overloaded", detail)
        self._budget.held += size
        self._held += size


def headers_of(request: Request) -> dict[bytes, bytes]:
    """Return the request's headers by their names in lower case. Of headers with the same name the first counts."""
    return dict(reversed(request.scope["headers"]))


async def received(request: Request, settings: Settings, share: Share, deadline: Deadline) -> Received:
    """Return the whole body as it was sent. The share grows with it.

    Raises:
        ServiceError: `unsupported_type`, `too_large`, `too_slow`, `client_deadline`, `client_closed` or `overloaded`,
            as soon as it is known.
    """
    headers = headers_of(request)
    encoding = headers.get(b"content-encoding", IDENTITY.encode()).decode("latin-1").strip().lower()
    if encoding not in ENCODINGS:
        raise ServiceError("unsupported_type", f"Content-Encoding: expected gzip, deflate or none, got {encoding!r}")
    if int(headers.get(LENGTH, 0)) > settings.max_body_bytes:
        raise _too_large(settings)
    body = await _read(request, settings, share, deadline)
    length = headers.get(HEADER_LENGTH)
    media_type = headers.get(b"content-type", b"").decode("latin-1")
    return Received(body, media_type, encoding, None if length is None else length.decode("latin-1"))


async def _read(request: Request, settings: Settings, share: Share, deadline: Deadline) -> bytes:
    arriving = _arriving(settings, deadline)
    most = settings.max_body_bytes
    chunks, size, is_more = [], 0, True
    try:
        async with asyncio.timeout(arriving.left):
            while is_more:
                message = await request.receive()
                if message["type"] == "http.disconnect":
                    raise ServiceError("client_closed", "the client went away while it sent the body")
                chunk: bytes = message.get("body", b"")
                size += len(chunk)
                if size > most:
                    raise _too_large(settings)
                share.grow(len(chunk))
                chunks.append(chunk)
                is_more = message.get("more_body", False)
    except TimeoutError:
        raise arriving.error() from None
    return b"".join(chunks)


def _too_large(settings: Settings) -> ServiceError:
    return ServiceError("too_large", f"the body may have at most {settings.max_body_bytes} bytes")


def _arriving(settings: Settings, deadline: Deadline) -> Deadline:
    """Return the deadline of the body's arrival.

    If the service's own timeout passes while the body arrives, the answer is 408, not 504: the upload caused it.
    """
    slow = Deadline(time.perf_counter(), settings.receive_timeout, "too_slow", "the body did not arrive")
    if deadline.word != CLIENTS:
        deadline = Deadline(deadline.began, deadline.seconds, slow.word, slow.what)
    return slow.or_sooner(deadline)

"""Limits for clients that send or read too slowly: their connections are closed. uvicorn alone waits without a limit.

A connection is not closed for idleness while a request lies unread in its socket: its client would get no answer.

uvicorn has no public setting for this: its only limit of time on a connection is the one between two requests, and an
ASGI application sees a request no earlier than its whole head. So a subclass of uvicorn's protocol starts the timers.
It uses attributes that uvicorn does not document, therefore pyproject.toml allows one minor version of uvicorn, and
tests/service/test_uvicorn_contract.py checks each attribute.

The timers take 0.3 to 1.2 % of the processor time of an int8 request (benchmarks/bypasses.py: AMD EPYC with AVX2 and
without VNNI, 2 cores under other load, uvicorn 0.54.0, OpenVINO 2026.4.1, n = 10 rounds of 5 s, 1 to 32 clients).
"""

import asyncio
import fcntl
import termios
from collections.abc import Callable
from typing import Any

from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.http.framing import Refused, StrictProtocol

MAX_UNSENT_BYTES = 65_536
"""The bytes of answers that wait for a client to read before the app has to wait. Under TLS the default is 512 KiB."""
MAX_HEAD_BYTES = 65_536
"""The limit for request line and headers, and for each stretch between, or after, the chunks of a body.

httptools itself has no limit."""
FREE_CHUNKS = 10_000
"""Chunks of a body that may be small."""
CHUNK_BYTES = 16
"""The least average size of a body's further chunks. Each chunk is a call of Python: 256 KiB, as much as arrives at
once, take 45 ms if they hold chunks of one byte, 13 ms with chunks of 16 (2 cores of an AMD EPYC under other load)."""


def limited_to(seconds: float) -> type[asyncio.Protocol]:
    """Return a class for `uvicorn.Config(http=...)` that closes a slow connection.

    A request has `seconds` to arrive. Its client has `seconds` more to make room for the answer whenever it stops
    reading.
    """
    return type("LimitedProtocol", (TimedProtocol,), {"seconds": seconds})


class TimedProtocol(StrictProtocol):
    """uvicorn's protocol with a timer while a request arrives, and one while its client does not read.

    Between two requests uvicorn's own keep-alive timeout applies.
    """

    seconds: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Start the timer of the first request."""
        super().connection_made(transport)
        transport.set_write_buffer_limits(MAX_UNSENT_BYTES)
        self._on_loss: Callable[[], None] | None = None
        self._is_lost = False
        self._is_arriving = True
        self._head_bytes: int | None = 0  # None while a body arrives
        self._arrival: asyncio.TimerHandle | None = self.loop.call_later(self.seconds, transport.close)
        self._unread: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        """Parse the data, then start, keep or stop the timer: by now it is known whether a request is arriving."""
        if self.is_refused:
            return
        if self._head_bytes is not None:
            # A head that begins in the middle of `data` is counted from the next call on.
            self._head_bytes += len(data)
        super().data_received(data)
        if (self._head_bytes or 0) > MAX_HEAD_BYTES:
            self.transport.close()
        if not self._is_arriving:
            self._stop_arrival_timer()
            self._restart_keep_alive()
        elif self._arrival is None:
            self._arrival = self.loop.call_later(self.seconds, self.transport.close)

    def _restart_keep_alive(self) -> None:
        """Start uvicorn's keep-alive timer again.

        Every byte stops that timer, but only an answer starts it: bytes that begin no request would keep the
        connection open without a limit.
        """
        if self.cycle.response_complete and self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def timeout_keep_alive_handler(self) -> None:
        """Close a connection that was idle for too long, unless a request came that was not yet read."""
        if not self._has_unread():
            super().timeout_keep_alive_handler()

    def close_after_answer(self) -> None:
        """Announce with the answer that is due, if it has not begun, that the connection closes after it."""
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn declares it without None
        if cycle is not None and not cycle.response_started:
            cycle.keep_alive = False

    def shutdown(self) -> None:
        """Close the connection now if it is idle, else after its answer. A request that is not yet read gets one."""
        if not self._has_unread():
            super().shutdown()

    def _has_unread(self) -> bool:
        """Return whether the client sent bytes that the event loop did not read yet."""
        if self.transport.is_closing():
            return False
        file = self.transport.get_extra_info("socket").fileno()
        return file >= 0 and any(fcntl.ioctl(file, termios.FIONREAD, bytes(4)))  # -1: closed, which uvloop tells late

    def on_message_begin(self) -> None:
        """Count the bytes of a new head."""
        super().on_message_begin()
        self._is_arriving, self._head_bytes = True, 0
        self._chunks = self._body_bytes = 0

    def on_headers_complete(self) -> None:
        """Stop counting: a body follows, or nothing."""
        super().on_headers_complete()
        self._head_bytes = None

    def on_chunk_header(self) -> None:
        """Count again: the length of a chunk was read. After the last chunk, of length 0, headers may follow.

        Raises:
            Refused: the chunks are too small.
        """
        self._head_bytes = 0
        self._chunks += 1
        if self._chunks > FREE_CHUNKS + self._body_bytes // CHUNK_BYTES:
            self._broken_rule = f"expected chunks of {CHUNK_BYTES} bytes or more on average after {FREE_CHUNKS} chunks"
            raise Refused(self._broken_rule)

    def on_body(self, body: bytes) -> None:
        """Stop counting: these bytes belong to the body."""
        super().on_body(body)
        self._head_bytes = None
        self._body_bytes += len(body)

    def on_message_complete(self) -> None:
        """Record that the whole request arrived."""
        super().on_message_complete()
        self._is_arriving, self._head_bytes = False, None

    def pause_writing(self) -> None:
        """Start the timer of a client that does not read."""
        super().pause_writing()
        # abort, because close() would wait until the client reads
        self._unread = self.loop.call_later(self.seconds, self.transport.abort)

    def resume_writing(self) -> None:
        """Stop the timer of a client that does not read."""
        super().resume_writing()
        self._stop_unread_timer()

    def when_lost(self, call: Callable[[], None]) -> None:
        """Call a function when the connection is lost, or at once if it already is."""
        self._on_loss = call
        if self._is_lost:
            call()

    def connection_lost(self, exc: Any) -> None:
        """Stop both timers."""
        super().connection_lost(exc)
        self._is_lost = True
        if self._on_loss is not None:
            self._on_loss()
        self._stop_arrival_timer()
        self._stop_unread_timer()

    def _stop_arrival_timer(self) -> None:
        if self._arrival is not None:
            self._arrival.cancel()
            self._arrival = None

    def _stop_unread_timer(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

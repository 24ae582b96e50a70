"""Connections that send or read too slowly are closed: uvicorn itself waits for them for ever."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 65_536
"""Request line and headers, and what stands between the chunks of a body and after it; httptools has no limit."""


def patient(seconds: float) -> type[asyncio.Protocol]:
    """A protocol class for `uvicorn.Config(http=...)`: `seconds` for a whole request, and again to take its answer."""
    return type("Patient", (PatientProtocol,), {"seconds": seconds})


class PatientProtocol(HttpToolsProtocol):
    """Between requests uvicorn's keep-alive timeout holds."""

    seconds: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._is_waiting = True
        self._head_bytes: int | None = 0
        self._timer: asyncio.TimerHandle | None = self.loop.call_later(self.seconds, transport.close)
        self._unread: asyncio.TimerHandle | None = None

    def data_received(self, data: bytes) -> None:
        if self._head_bytes is not None:
            self._head_bytes += len(data)  # of a piece in which a head only begins, nothing counts
        super().data_received(data)
        if (self._head_bytes or 0) > MAX_HEAD_BYTES:
            self.transport.close()
        if not self._is_waiting:
            self._forget_timer()
            self._restart_keep_alive()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self.transport.close)

    def _restart_keep_alive(self) -> None:
        """Bytes that begin no request stop uvicorn's keep-alive timer, which only an answer starts again."""
        if self.cycle.response_complete and self.timeout_keep_alive_task is None and not self.transport.is_closing():
            self.timeout_keep_alive_task = self.loop.call_later(
                self.timeout_keep_alive, self.timeout_keep_alive_handler
            )

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_waiting, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head_bytes = None

    def on_chunk_header(self) -> None:
        """The length of a chunk was read; after that of the last one, 0, headers may follow."""
        self._head_bytes = 0

    def on_body(self, body: bytes) -> None:
        super().on_body(body)
        self._head_bytes = None

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_waiting, self._head_bytes = False, None

    def pause_writing(self) -> None:
        super().pause_writing()
        self._unread = self.loop.call_later(self.seconds, self.transport.abort)  # close() would wait for the client

    def resume_writing(self) -> None:
        super().resume_writing()
        self._forget_unread()

    def connection_lost(self, exc: Any) -> None:
        super().connection_lost(exc)
        self._forget_timer()
        self._forget_unread()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _forget_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

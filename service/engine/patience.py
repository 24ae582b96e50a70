"""Connections that send too slowly are closed: uvicorn itself waits for ever for the rest of a request."""

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

MAX_HEAD_BYTES = 65_536
"""Request line and headers; httptools has no limit."""


def patient(seconds: float) -> type[asyncio.Protocol]:
    """A protocol class for `uvicorn.Config(http=...)` that waits `seconds` for a whole request, once it has begun."""
    return type("Patient", (PatientProtocol,), {"seconds": seconds})


class PatientProtocol(HttpToolsProtocol):
    """Between requests uvicorn's keep-alive timeout holds."""

    seconds: float

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._is_waiting = True
        self._head_bytes: int | None = 0
        self._timer: asyncio.TimerHandle | None = self.loop.call_later(self.seconds, transport.close)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self._head_bytes is not None:
            self._head_bytes += len(data)
            if self._head_bytes > MAX_HEAD_BYTES:
                self.transport.close()
        if not self._is_waiting:
            self._forget_timer()
        elif self._timer is None:
            self._timer = self.loop.call_later(self.seconds, self.transport.close)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self._is_waiting, self._head_bytes = True, 0

    def on_headers_complete(self) -> None:
        super().on_headers_complete()
        self._head_bytes = None

    def on_message_complete(self) -> None:
        super().on_message_complete()
        self._is_waiting = False

    def connection_lost(self, exc: Any) -> None:
        super().connection_lost(exc)
        self._forget_timer()

    def _forget_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

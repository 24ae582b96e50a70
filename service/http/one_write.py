"""Answers that leave in one write. uvicorn writes the head of an answer and its body apart, each with a system call."""

from typing import Any, Protocol

from starlette.types import ASGIApp, Message, Receive, Scope, Send


class Transport(Protocol):
    """The part of a transport that an answer uses."""

    def write(self, data: bytes) -> None: ...
    def close(self) -> None: ...
    def is_closing(self) -> bool: ...


class Joined:
    """A transport that keeps the first write, and sends it together with the second."""

    __slots__ = ("_first", "_transport", "close", "is_closing")

    def __init__(self, transport: Transport) -> None:
        self._transport = transport
        self._first: bytes | None = None
        self.close = transport.close
        self.is_closing = transport.is_closing

    def write(self, data: bytes) -> None:
        """Keep the first data; send the second after them, and whatever follows."""
        if self._first is None:
            self._first = data
        else:
            self._transport.write(self._first + data)
            self._first = b""


class OneWrite:
    """ASGI: the app of one request, whose answer begins with head and body in one write.

    The head waits for the first part of the body. `cycle` is uvicorn's of the request: it makes both, and writes them
    to its transport. The answer to HEAD has no body, so nothing of it waits.
    """

    __slots__ = ("_app", "_cycle", "_start")

    def __init__(self, app: ASGIApp, cycle: Any) -> None:
        self._app = app
        self._cycle = cycle
        self._start: Message | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await self._app(scope, receive, send if scope["method"] == "HEAD" else self._send)

    async def _send(self, message: Message) -> None:
        cycle = self._cycle
        if message["type"] == "http.response.start" and self._start is None and not cycle.response_started:
            self._start = message
            return
        if self._start is not None:
            start, self._start = self._start, None
            if cycle.flow.write_paused and not cycle.disconnected:
                await cycle.flow.drain()  # from here on nothing waits, so nobody else writes to the joined transport
            transport = cycle.transport
            cycle.transport = Joined(transport)
            try:
                await cycle.send(start)
                await cycle.send(message)
            finally:
                cycle.transport = transport
            return
        await cycle.send(message)

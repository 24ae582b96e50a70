"""An answer leaves in one write, with the bytes that uvicorn would write in two."""

import asyncio
import logging
from typing import Any

import pytest
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from uvicorn.protocols.http.flow_control import FlowControl
from uvicorn.protocols.http.httptools_impl import RequestResponseCycle

from service.http.one_write import OneWrite


class Transport(asyncio.Transport):
    """A transport that keeps what is written, and None for its end."""

    def __init__(self) -> None:
        super().__init__()
        self.written: list[bytes | None] = []

    def write(self, data: Any) -> None:
        self.written.append(bytes(data))

    def close(self) -> None:
        self.written.append(None)

    def is_closing(self) -> bool:
        return None in self.written


async def streamed(scope: Scope, receive: Receive, send: Send) -> None:
    """Answer in three parts."""
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"6")]})
    for part in (b"ab", b"cd", b"ef"):
        message: Message = {"type": "http.response.body", "body": part, "more_body": part != b"ef"}
        await send(message)


async def broken(scope: Scope, receive: Receive, send: Send) -> None:
    """Fail between head and body."""
    await send({"type": "http.response.start", "status": 200, "headers": []})
    raise RuntimeError("a bug")


def written(app: ASGIApp, method: str = "POST", *, joined: bool = True, keep_alive: bool = True) -> list[bytes | None]:
    """Return what an app's answer to a request writes."""

    async def scenario() -> list[bytes | None]:
        transport, logger = Transport(), logging.getLogger("nobody")
        logger.propagate = False
        scope: Any = {"type": "http", "method": method, "path": "/", "headers": []}
        cycle = RequestResponseCycle(
            scope, transport, FlowControl(transport), logger, logger, access_log=False,
            default_headers=[(b"date", b"now")], message_event=asyncio.Event(),
            expect_100_continue=False, keep_alive=keep_alive, on_response=lambda: None,
        )  # fmt: skip
        served: Any = OneWrite(app, cycle) if joined else app
        await cycle.run_asgi(served)
        return transport.written

    return asyncio.run(scenario())


@pytest.mark.parametrize("keep_alive", [True, False])
@pytest.mark.parametrize("body", [b"{}", b""], ids=["body", "empty"])
def test_head_and_body_are_one_write(body: bytes, keep_alive: bool) -> None:
    """The bytes, and the end of the connection after them, are uvicorn's."""
    app = Response(body, headers={"X-Request-ID": "1"})
    apart = written(app, joined=False, keep_alive=keep_alive)
    end = [] if keep_alive else [None]
    assert apart == [*(part for part in apart if part is not None), *end]
    assert written(app, keep_alive=keep_alive) == [b"".join(part for part in apart if part is not None), *end]


def test_an_answer_in_parts_goes_on_as_it_began() -> None:
    """The head takes the first part along, and the others follow as they come."""
    head, *parts = written(streamed, joined=False)
    assert head is not None
    assert written(streamed) == [head + b"ab", b"cd", b"ef"]
    assert parts == [b"ab", b"cd", b"ef"]


def test_the_answer_to_head_has_no_body() -> None:
    """Its head waits for nothing."""
    assert written(Response(b"{}"), "HEAD") == written(Response(b"{}"), "HEAD", joined=False)


def test_a_bug_before_the_body_is_a_500() -> None:
    """The head that waited is not sent."""
    head = written(broken)[0]
    assert head is not None
    assert head.startswith(b"HTTP/1.1 500 ")

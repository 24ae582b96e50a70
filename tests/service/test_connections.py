"""The limit for connections, their end, and answers in slices, on a small app of their own."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import pytest
import uvicorn
from starlette.responses import PlainTextResponse
from uvicorn.server import ServerState

from service.http.connections import LimitedServer
from service.http.sliced import SLICE_BYTES, SlicedResponse
from service.http.slow_clients import limited_to

SECONDS = 20
"""The time that a silent client has. No test waits for it."""
REQUEST = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n"
OK = b"HTTP/1.1 200 OK\r\n"


@asynccontextmanager
async def served(limit: int, delay: float = 0, **tls: Any) -> AsyncIterator[tuple[LimitedServer, int]]:
    """Serve "ok" on the port that is yielded, with a limit for connections."""
    sock = socket.create_server(("127.0.0.1", 0))
    app = PlainTextResponse("ok")
    config = uvicorn.Config(app, http=limited_to(SECONDS), lifespan="off", ws="none", log_config=None, **tls)
    server = LimitedServer(config, limit, SECONDS, delay)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield server, sock.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def asked(port: int, context: ssl.SSLContext | None = None) -> bytes:
    """Return the head of an answer, on a connection of its own."""
    name = "127.0.0.1" if context else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    writer.write(REQUEST)
    line = await reader.readuntil(b"\r\n\r\n")
    writer.close()
    return line


def test_a_connection_that_is_already_closed_does_not_stop_the_stop() -> None:
    """uvloop may have closed a socket before its transport says so."""
    closed = socket.socket()
    closed.close()

    async def stop() -> Mock:
        protocol: Any = limited_to(SECONDS)(uvicorn.Config(None), ServerState(), {})  # type: ignore[call-arg]
        protocol.transport = Mock(is_closing=lambda: False, get_extra_info=lambda _: closed)
        protocol.shutdown()
        return protocol.transport

    asyncio.run(stop()).close.assert_called_once_with()


@pytest.mark.parametrize("is_https", [False, True])
def test_a_client_waits_until_a_silent_one_has_gone(certificate: tuple[Path, Path], is_https: bool) -> None:
    """Clients that send nothing, not even TLS, fill the limit. The next one is answered as soon as one of them ends."""
    chain, key = certificate
    context = ssl.create_default_context(cafile=chain) if is_https else None

    async def ask() -> tuple[bool, bytes]:
        tls = {"ssl_certfile": str(chain), "ssl_keyfile": str(key)} if is_https else {}
        async with served(2, **tls) as (_, port):
            assert (await asked(port, context)).startswith(OK)
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            waiting = asyncio.create_task(asked(port, context))
            done, _ = await asyncio.wait([waiting], timeout=0.3)
            silent[0][1].close()
            answer = await asyncio.wait_for(waiting, SECONDS / 2)
            silent[1][1].close()
            return bool(done), answer[: len(OK)]

    assert asyncio.run(ask()) == (False, OK)


def test_failed_handshakes_give_their_places_back(certificate: tuple[Path, Path]) -> None:
    """After more connections without TLS than there are places, a client with TLS is answered."""
    chain, key = certificate

    async def ask() -> bytes:
        async with served(2, ssl_certfile=str(chain), ssl_keyfile=str(key)) as (_, port):
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await reader.read()
                writer.close()
            return await asyncio.wait_for(asked(port, ssl.create_default_context(cafile=chain)), SECONDS / 2)

    assert asyncio.run(ask()).startswith(OK)


async def answer_of(reader: asyncio.StreamReader) -> str:
    """Return the next whole answer of a connection."""
    return (await reader.readuntil(b"\r\n\r\nok")).decode()


async def refused(port: int) -> None:
    """Return as soon as nobody listens. Until then every request is answered."""
    with suppress(ConnectionRefusedError):
        while True:
            assert (await asked(port)).startswith(OK)


def test_requests_are_served_until_the_delay_is_over() -> None:
    """After the signal every answer says `close`, on new and on old connections; then nobody listens any more."""

    async def scenario() -> None:
        async with served(9, delay=1) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            assert "connection: close" not in await answer_of(reader)
            server.should_exit = True
            async with asyncio.timeout(SECONDS):
                while b"connection: close" not in (last := await asked(port)):
                    assert last.startswith(OK)
                writer.write(REQUEST)
                assert "connection: close" in await answer_of(reader)
                assert await reader.read() == b""
                writer.close()
                await refused(port)

    asyncio.run(scenario())


@pytest.mark.parametrize("end", ["shutdown", "timeout_keep_alive_handler"])
def test_a_request_that_lies_unread_is_answered(end: str) -> None:
    """An idle connection is not closed when the next request already came, at the end as after idleness."""

    async def scenario() -> None:
        async with served(9) as (server, port):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(REQUEST)
            await answer_of(reader)
            (connection,) = server.server_state.connections
            writer.write(REQUEST)  # goes to the kernel at once
            getattr(connection, end)()
            await answer_of(reader)
            getattr(connection, end)()
            assert await reader.read() == b""
            writer.close()

    asyncio.run(scenario())


def test_a_large_answer_is_sent_in_slices() -> None:
    """No message has more than SLICE_BYTES, and together they are the body."""
    body, sent = bytes(range(256)) * 1000, []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        raise AssertionError("nothing is received")

    asyncio.run(SlicedResponse(body)({"type": "http"}, receive, send))
    parts = [message["body"] for message in sent[1:]]
    assert max(map(len, parts)) == SLICE_BYTES
    assert b"".join(parts) == body
    assert [message["more_body"] for message in sent[1:]] == [True] * (len(parts) - 1) + [False]

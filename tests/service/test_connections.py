"""The limit for connections and answers in slices, on a small app of their own."""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn
from starlette.responses import PlainTextResponse

from service.http.connections import LimitedServer
from service.http.sliced import SLICE_BYTES, SlicedResponse
from service.http.slow_clients import limited_to

SECONDS = 20
"""The time that a silent client has. No test waits for it."""


@asynccontextmanager
async def served(limit: int, **tls: Any) -> AsyncIterator[int]:
    """Serve "ok" on the port that is yielded, with a limit for connections."""
    sock = socket.create_server(("127.0.0.1", 0))
    app = PlainTextResponse("ok")
    config = uvicorn.Config(app, http=limited_to(SECONDS), lifespan="off", ws="none", log_config=None, **tls)
    server = LimitedServer(config, limit, SECONDS)
    serving = asyncio.create_task(server.serve(sockets=[sock]))
    try:
        yield sock.getsockname()[1]
    finally:
        server.should_exit = True
        await serving


async def asked(port: int, context: ssl.SSLContext | None) -> bytes:
    """Return the status line of an answer, on a connection of its own."""
    name = "127.0.0.1" if context else None
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context, server_hostname=name)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    line = await reader.readline()
    writer.close()
    return line


@pytest.mark.parametrize("is_https", [False, True])
def test_a_client_waits_until_a_silent_one_has_gone(certificate: tuple[Path, Path], is_https: bool) -> None:
    """Clients that send nothing, not even TLS, fill the limit. The next one is answered as soon as one of them ends."""
    chain, key = certificate
    context = ssl.create_default_context(cafile=chain) if is_https else None

    async def ask() -> tuple[bool, bytes]:
        tls = {"ssl_certfile": str(chain), "ssl_keyfile": str(key)} if is_https else {}
        async with served(2, **tls) as port:
            assert await asked(port, context) == b"HTTP/1.1 200 OK\r\n"
            silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(2)]
            waiting = asyncio.create_task(asked(port, context))
            done, _ = await asyncio.wait([waiting], timeout=0.3)
            silent[0][1].close()
            answer = await asyncio.wait_for(waiting, SECONDS / 2)
            silent[1][1].close()
            return bool(done), answer

    assert asyncio.run(ask()) == (False, b"HTTP/1.1 200 OK\r\n")


def test_failed_handshakes_give_their_places_back(certificate: tuple[Path, Path]) -> None:
    """After more connections without TLS than there are places, a client with TLS is answered."""
    chain, key = certificate

    async def ask() -> bytes:
        async with served(2, ssl_certfile=str(chain), ssl_keyfile=str(key)) as port:
            for _ in range(5):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(b"GET / HTTP/1.1\r\n\r\n")
                await reader.read()
                writer.close()
            return await asyncio.wait_for(asked(port, ssl.create_default_context(cafile=chain)), SECONDS / 2)

    assert asyncio.run(ask()) == b"HTTP/1.1 200 OK\r\n"


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

"""Bodies on their way in: what is done to them beside the event loop, and what they are charged meanwhile."""

import asyncio
import threading
import time
import zlib
from types import SimpleNamespace

import pytest
from starlette.requests import Request
from starlette.types import Message

from service import bodies
from service.deadline import Deadline
from service.errors import ServiceError
from service.settings import Settings

SETTINGS = Settings(max_body_bytes=100_000)
WHOLE = bytes(50_000)


def request_of(body: bytes, encoding: str, most: int = 1_000_000) -> Request:
    """A request that has arrived, at a service that holds `most` bytes."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    app = SimpleNamespace(state=SimpleNamespace(held=bodies.Held(most)))
    headers = [(b"content-encoding", encoding.encode())]
    return Request({"type": "http", "method": "POST", "headers": headers, "app": app}, receive)


def patient() -> Deadline:
    return Deadline(time.perf_counter(), 60)


def test_a_compressed_body_is_inflated_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """In a thread; what it may become, at most the largest body, is held from before, what it is until the end."""
    body, inflated = zlib.compress(WHOLE), bodies._inflated
    request = request_of(body, "deflate")
    held, seen = request.app.state.held, []

    def watched(*arguments: object) -> bytes:
        seen.append((threading.current_thread() is threading.main_thread(), held.bytes))
        return inflated(*arguments)

    async def scenario() -> None:
        async with bodies.received(request, SETTINGS, patient()) as whole:
            assert (whole, held.bytes) == (WHOLE, len(WHOLE))

    monkeypatch.setattr(bodies, "_inflated", watched)
    asyncio.run(scenario())
    may_become = min(SETTINGS.max_body_bytes, bodies.MOST_INFLATED * len(body))
    assert seen == [(False, len(body) + may_become)]
    assert held.bytes == 0


@pytest.mark.parametrize("size", [1, 1000, 10_000_000])
def test_no_body_becomes_more_than_it_is_charged(size: int) -> None:
    """The densest that zlib makes: zeros."""
    assert size <= bodies.MOST_INFLATED * len(zlib.compress(bytes(size), 9))


def test_what_may_become_too_much_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    """`overloaded` where there is no room for it."""
    request = request_of(zlib.compress(WHOLE), "deflate", most=len(WHOLE))
    monkeypatch.setattr(bodies, "_inflated", lambda *_: pytest.fail("inflated"))

    async def scenario() -> None:
        async with bodies.received(request, SETTINGS, patient()):
            pass

    with pytest.raises(ServiceError) as raised:
        asyncio.run(scenario())
    assert raised.value.reason.word == "overloaded"
    assert request.app.state.held.bytes == 0


@pytest.mark.parametrize("word", ["client_deadline", "deadline"])
def test_decoding_ends_with_the_deadline_of_its_request(word: str) -> None:
    """However much longer decoding may take; the error is the one of who set it."""
    done = threading.Event()

    async def scenario() -> None:
        try:
            deadline = Deadline(time.perf_counter(), 0.05, word)
            await bodies.timely(lambda _: done.wait(60), bodies.THREAD_BYTES, Settings(decode_timeout=60), deadline)
        finally:
            done.set()

    with pytest.raises(ServiceError, match=r"no answer within 0\.05 s") as raised:
        asyncio.run(scenario())
    assert raised.value.reason.word == word

"""Bodies on their way in: they are inflated beside the event loop, within the budget that all requests share."""

import asyncio
import threading
import time
import zlib
from typing import Any

import pytest
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import Message

from service import bodies, decoding
from service.bodies import Budget
from service.deadline import Deadline
from service.errors import ServiceError
from service.settings import Settings

SETTINGS = Settings(max_body_bytes=100_000)
WHOLE = bytes(50_000)


def received(body: bytes, encoding: str, budget: Budget) -> bytes:
    """Receive a body that has arrived; while it is in use, the budget holds as many bytes as it has."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def scenario() -> bytes:
        headers = [(b"content-encoding", encoding.encode())]
        request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
        async with bodies.received(request, SETTINGS, budget, Deadline(time.perf_counter(), 60)) as whole:
            assert budget.held == len(whole)
            return whole

    return asyncio.run(scenario())


def test_a_compressed_body_is_inflated_beside_the_event_loop(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is inflated in a thread, and its largest possible size is reserved before that."""
    body, budget, decompressobj = zlib.compress(WHOLE), Budget(1_000_000), zlib.decompressobj
    seen: list[tuple[bool, int]] = []

    def watched(*arguments: Any) -> Any:
        seen.append((threading.current_thread() is threading.main_thread(), budget.held))
        return decompressobj(*arguments)

    monkeypatch.setattr(zlib, "decompressobj", watched)
    assert received(body, "deflate", budget) == WHOLE
    may_become = min(SETTINGS.max_body_bytes, bodies.MOST_INFLATED * len(body))
    assert seen == [(False, len(body) + may_become)]
    assert budget.held == 0


@pytest.mark.parametrize("size", [1, 1000, 10_000_000])
def test_no_body_becomes_more_than_is_reserved_for_it(size: int) -> None:
    """Zeros are the densest that zlib makes."""
    assert size <= bodies.MOST_INFLATED * len(zlib.compress(bytes(size), 9))


def test_a_body_without_room_for_its_inflated_size_is_not_inflated(monkeypatch: pytest.MonkeyPatch) -> None:
    """The request ends as `overloaded`, and its share of the budget is given back."""
    body, budget = zlib.compress(WHOLE), Budget(len(WHOLE))
    monkeypatch.setattr(zlib, "decompressobj", lambda *_: pytest.fail("inflated"))
    with pytest.raises(ServiceError) as raised:
        received(body, "deflate", budget)
    assert raised.value.reason.word == "overloaded"
    assert budget.held == 0


def decode_without_end(settings: Settings, deadline: Deadline) -> ServiceError:
    """Return the error that ends a request whose decoder does not end by itself."""
    is_over = threading.Event()

    async def scenario() -> None:
        request = decoding.Received(Headers(), b"", settings, deadline)
        try:
            await decoding.timely(lambda _: is_over.wait(60), decoding.THREAD_BYTES, request)
        finally:
            is_over.set()

    with pytest.raises(ServiceError) as raised:
        asyncio.run(scenario())
    return raised.value


@pytest.mark.parametrize("word", ["client_deadline", "deadline"])
def test_decoding_ends_with_the_deadline_of_its_request(word: str) -> None:
    """The decoder would take longer; the error's word says whose deadline it was."""
    error = decode_without_end(Settings(decode_timeout=60), Deadline(time.perf_counter(), 0.05, word))
    assert (error.reason.word, error.detail) == (word, "no answer within 0.05 s")


def test_decoding_ends_after_the_decode_timeout() -> None:
    """The request would wait longer; it ends as `deadline`, whatever its thread does."""
    error = decode_without_end(Settings(decode_timeout=0.05), Deadline(time.perf_counter(), 60))
    assert (error.reason.word, error.detail) == ("deadline", "the images could not be decoded within 0.05 s")

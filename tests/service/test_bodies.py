"""Bodies on their way in: they count against a budget that all requests share, and small ones keep a part of it."""

import asyncio
import time
import zlib

import pytest
from starlette.requests import Request
from starlette.types import Message

from service import bodies
from service.bodies import Budget
from service.deadline import Deadline
from service.decoding import Received, inflated
from service.errors import ServiceError
from service.settings import Settings

SETTINGS = Settings(max_body_bytes=1_000_000)
SMALL, LARGE = bytes(bodies.SMALL_BYTES), bytes(bodies.SMALL_BYTES + 1)


def received(body: bytes, budget: Budget, encoding: str = "identity") -> Received:
    """Receive a body that has arrived; while it is in use, the budget holds as many bytes as it has."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def scenario() -> Received:
        headers = [(b"content-encoding", encoding.encode()), (b"content-length", str(len(body)).encode())]
        request = Request({"type": "http", "method": "POST", "headers": headers}, receive)
        before = budget.held
        with budget.share(bodies.headers_of(request)) as share:
            whole = await bodies.received(request, SETTINGS, share, Deadline(time.perf_counter(), 60))
            assert budget.held == before + len(body)
            return whole

    return asyncio.run(scenario())


def test_a_body_arrives_as_it_was_sent() -> None:
    """Nothing undoes its Content-Encoding in this process; its share of the budget is given back."""
    budget = Budget(1_000_000)
    body = zlib.compress(SMALL)
    assert received(body, budget, "deflate") == Received(body, "", "deflate", None)
    assert budget.held == 0


def test_a_part_of_the_budget_is_kept_for_small_bodies() -> None:
    """Large bodies that fill their part leave room for small ones, and for no further large one."""
    budget = Budget(8 * len(LARGE))
    with budget.share({b"content-length": b"%d" % len(LARGE)}) as share:
        share.grow(7 * len(LARGE))
        assert received(SMALL, budget).body == SMALL
        with pytest.raises(ServiceError) as raised:
            received(LARGE, budget)
    assert raised.value.reason.word == "overloaded"
    assert budget.held == 0
    assert received(LARGE, budget).body == LARGE


def test_a_body_is_inflated_up_to_a_limit() -> None:
    """At the limit it is whole; past it the error is `too_large`, and for other bytes `malformed`."""
    body = zlib.compress(bytes(1000))
    assert inflated(body, "deflate", 1000) == bytes(1000)
    for broken, limit, word in ((body, 999, "too_large"), (body[:-1], 1000, "malformed"), (b"x", 1000, "malformed")):
        with pytest.raises(ServiceError) as raised:
            inflated(broken, "deflate", limit)
        assert raised.value.reason.word == word

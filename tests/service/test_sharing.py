"""Answers that requests share: none is older than its request, none is made for a client that has gone."""

import asyncio
import time

import pytest
from starlette.requests import Request

from service.sharing import Shared


def request(is_gone: bool = False) -> Request:
    """Return a request whose client waits, or has gone."""

    async def receive() -> dict[str, object]:
        if not is_gone:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


class Counting:
    """A maker of the answers 1, 2, ... Its first answers may be errors. `is_begun` is set while it makes one."""

    def __init__(self, *errors: Exception) -> None:
        self.made = 0
        self.is_begun = asyncio.Event()
        self._errors = list(errors)

    async def __call__(self, _: Request) -> int:
        self.is_begun.set()
        await asyncio.sleep(0.02)
        if self._errors:
            raise self._errors.pop()
        self.made += 1
        return self.made


def test_requests_at_the_same_time_share_one_answer() -> None:
    """The first request gets the first answer; all that come while it is made get the second one."""

    async def ask() -> list[int | None]:
        shared = Shared(make := Counting())
        first = asyncio.create_task(shared.get(request()))
        await make.is_begun.wait()
        return list(await asyncio.gather(first, *(shared.get(request()) for _ in range(20))))

    assert asyncio.run(ask()) == [1] + [2] * 20


def test_a_client_that_has_gone_gets_no_answer() -> None:
    """Nothing is made for clients that went away before their turn; who waits among them is answered."""

    async def ask() -> tuple[list[int | None], int]:
        shared = Shared(make := Counting())
        answers = [shared.get(request(is_gone=index != 5)) for index in range(10)]
        return list(await asyncio.gather(*answers)), make.made

    assert asyncio.run(ask()) == ([None] * 5 + [1] * 5, 1)


def test_a_request_that_is_cancelled_leaves_the_next_one_its_answer() -> None:
    """A request that ends while its answer is made does not keep others from theirs."""

    async def ask() -> int | None:
        shared = Shared(make := Counting())
        cancelled = asyncio.create_task(shared.get(request()))
        await make.is_begun.wait()
        cancelled.cancel()
        return await shared.get(request())

    assert asyncio.run(ask()) == 1


def test_an_error_reaches_one_request() -> None:
    """The request that the making fails for gets the error; the next one gets an answer."""

    async def ask() -> int | None:
        shared = Shared(Counting(ValueError("first")))
        with pytest.raises(ValueError, match="first"):
            await shared.get(request())
        return await shared.get(request())

    assert asyncio.run(ask()) == 1


def test_answers_take_a_quarter_of_the_time() -> None:
    """Asked without a pause, the making of answers pauses three times as long as it takes."""

    async def ask() -> float:
        shared, began = Shared(make := Counting()), time.perf_counter()
        while make.made < 5:
            await shared.get(request())
        return time.perf_counter() - began

    assert asyncio.run(ask()) > 5 * 0.02 + 4 * 3 * 0.02

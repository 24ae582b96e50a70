"""Answers that requests share: none is older than its request, none is made for a client that has gone."""

import asyncio

import pytest
from starlette.requests import Request

from service import sharing
from service.sharing import Shared


def request(is_gone: bool = False) -> Request:
    """Return a request whose client waits, or has gone."""

    async def receive() -> dict[str, object]:
        if not is_gone:
            await asyncio.Event().wait()
        return {"type": "http.disconnect"}

    return Request({"type": "http"}, receive)


class Counting:
    """A maker of the answers 1, 2, ... Its first answers may be errors. It begins, and ends once `may_end` is set."""

    def __init__(self, *errors: Exception) -> None:
        self.made = 0
        self.is_begun, self.may_end = asyncio.Event(), asyncio.Event()
        self._errors = list(errors)

    async def __call__(self, _: Request) -> int:
        self.is_begun.set()
        await self.may_end.wait()
        if self._errors:
            raise self._errors.pop()
        self.made += 1
        return self.made


def test_requests_at_the_same_time_share_one_answer() -> None:
    """The first request gets the first answer; all that come while it is made get the second one."""

    async def ask() -> list[int | None]:
        shared = Shared(make := Counting())
        tasks = [asyncio.create_task(shared.get(request()))]
        await make.is_begun.wait()
        tasks += [asyncio.create_task(shared.get(request())) for _ in range(20)]
        asyncio.get_running_loop().call_soon(make.may_end.set)  # by then all of them have asked
        return list(await asyncio.gather(*tasks))

    assert asyncio.run(ask()) == [1] + [2] * 20


def test_a_client_that_has_gone_gets_no_answer() -> None:
    """Nothing is made for clients that went away before their turn; who waits among them is answered."""

    async def ask() -> tuple[list[int | None], int]:
        shared = Shared(make := Counting())
        make.may_end.set()
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
        make.may_end.set()
        return await shared.get(request())

    assert asyncio.run(ask()) == 1


def test_an_error_reaches_one_request() -> None:
    """The request that the making fails for gets the error; the next one gets an answer."""

    async def ask() -> int | None:
        shared = Shared(make := Counting(ValueError("first")))
        make.may_end.set()
        with pytest.raises(ValueError, match="first"):
            await shared.get(request())
        return await shared.get(request())

    assert asyncio.run(ask()) == 1


def test_answers_take_a_quarter_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Asked without a pause, the making of answers pauses three times as long as it takes, by a clock of the test."""
    now, pauses = 0.0, list[float]()

    async def make(_: Request) -> str:
        nonlocal now
        now += 0.1
        return "an answer"

    async def pause(seconds: float) -> None:
        nonlocal now
        now += seconds
        pauses.append(seconds)

    async def ask() -> None:
        shared = Shared(make)
        for _ in range(4):
            await shared.get(request())

    monkeypatch.setattr(sharing.time, "perf_counter", lambda: now)
    monkeypatch.setattr(sharing.asyncio, "sleep", pause)
    asyncio.run(ask())
    assert pauses == pytest.approx([0.0, 0.3, 0.3, 0.3])

"""Decoder processes: answers and errors come back, deadlines kill, memory is bounded, places are refilled."""

import asyncio
import os
import time
from collections.abc import Awaitable, Callable
from typing import TypeVar

import pytest

from service.deadline import Deadline
from service.decoders import Decoders, Heavy, Lane
from service.errors import ServiceError

MEMORY = 64 * 2**20
T = TypeVar("T")


def process_id(body: bytes = b"", *, is_heavy: bool = False) -> int:
    return os.getpid()


def refuse(body: bytes, *, is_heavy: bool = False) -> None:
    raise ServiceError("not_an_image", f"{len(body)} bytes")


def spin(body: bytes, *, is_heavy: bool = False) -> None:
    while True:
        pass


def allocate(size: int, *, is_heavy: bool = False) -> int:
    return len(bytes(size))


def end(body: bytes, *, is_heavy: bool = False) -> None:
    os._exit(7)


def heavy(body: bytes, *, is_heavy: bool = False) -> bool:
    if not is_heavy:
        raise Heavy
    return is_heavy


def spin_if_heavy(body: bytes, *, is_heavy: bool = False) -> None:
    heavy(body, is_heavy=is_heavy)
    spin(body)


def within(seconds: float) -> Deadline:
    return Deadline(time.perf_counter(), seconds)


def with_decoders(test: Callable[[Decoders], Awaitable[T]]) -> T:
    async def run() -> T:
        decoders = Decoders(MEMORY)
        await decoders.start()
        try:
            return await test(decoders)
        finally:
            await decoders.stop()

    return asyncio.run(run())


def error_of(work: Callable[..., object], argument: object, seconds: float = 30) -> tuple[str, str]:
    """The word and the detail of the error that decoding ends in, after which the next body is decoded."""

    async def run(decoders: Decoders) -> tuple[str, str]:
        with pytest.raises(ServiceError) as caught:
            await decoders.run(within(seconds), work, argument)
        assert await decoders.run(within(30), process_id) != os.getpid()
        return caught.value.reason.word, caught.value.detail

    return with_decoders(run)


def test_an_error_comes_back_whole() -> None:
    """The word and the detail of a ServiceError cross the process boundary."""
    assert error_of(refuse, b"abc") == ("not_an_image", "3 bytes")


def test_a_decoder_that_outlives_its_deadline_is_killed() -> None:
    """The request ends with its deadline's error, the process ends too, and its place is filled again."""

    async def run(decoders: Decoders) -> None:
        before = {await decoders.run(within(30), process_id) for _ in range(8)}
        with pytest.raises(ServiceError, match="no answer within"):
            await decoders.run(within(0.5), spin, b"")
        spinning = [decoders.run(within(0.5), spin, b"") for _ in before]
        assert all(isinstance(e, ServiceError) for e in await asyncio.gather(*spinning, return_exceptions=True))
        assert await decoders.run(within(30), process_id) not in before
        assert not any(is_running(pid) for pid in before)

    with_decoders(run)


def is_running(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


def test_memory_is_bounded() -> None:
    """A body that wants more than the bound is refused; the process goes on."""
    assert error_of(allocate, 2 * MEMORY)[0] == "too_large"


def test_a_decoder_that_ends_costs_its_own_request_only() -> None:
    """A crash of the decoder is an error of the body that caused it."""
    assert error_of(end, b"")[0] == "unacceptable"


def test_heavy_bodies_have_a_lane_of_their_own() -> None:
    """While heavy bodies hold their lane, as many as there are, an ordinary one is decoded at once."""

    async def run(decoders: Decoders) -> None:
        assert await decoders.run(within(30), heavy, b"") is True
        flood = [asyncio.create_task(decoders.run(within(60), spin_if_heavy, b"")) for _ in range(16)]
        await asyncio.sleep(0)
        assert await decoders.run(within(10), process_id) != os.getpid()
        assert not any(task.done() for task in flood)
        for task in flood:
            task.cancel()
        await asyncio.gather(*flood, return_exceptions=True)

    with_decoders(run)


def test_processes_exist_before_they_are_needed() -> None:
    """`start` returns once every process of the lane runs."""

    async def run() -> set[int]:
        lane = Lane("ordinary", 2, MEMORY)
        await lane.start()
        try:
            return {await lane.run(within(30), process_id) for _ in range(8)}
        finally:
            await lane.stop()

    assert os.getpid() not in asyncio.run(run())

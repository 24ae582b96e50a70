"""Decoder processes: answers and errors come back, deadlines kill, memory is bounded, places are refilled."""

import asyncio
import gc
import io
import os
import time
import weakref
from collections.abc import Awaitable, Callable
from typing import TypeVar

import psutil
import pytest
from PIL import Image

from service.deadline import Deadline
from service.decoders import Decoders, Lane
from service.decoding import Received, pixels_of
from service.errors import ServiceError
from service.images import LIGHT, UNBOUNDED, Heavy, Limits
from service.settings import Settings
from tests.service.processes import eventually

MEMORY = 2**30
T = TypeVar("T")


def not_light(limits: Limits) -> None:
    if limits.cost is LIGHT:
        raise Heavy


def process_id(body: Received, limits: Limits) -> int:
    not_light(limits)
    return os.getpid()


def refuse(body: Received, limits: Limits) -> None:
    not_light(limits)
    raise ServiceError("not_an_image", f"{len(body.body)} bytes")


def spin(body: Received, limits: Limits) -> None:
    not_light(limits)
    while True:
        pass


def allocate(body: Received, limits: Limits) -> int:
    not_light(limits)
    return len(bytes(2 * MEMORY))


def end(body: Received, limits: Limits) -> None:
    not_light(limits)
    os._exit(7)


def is_heavy(body: Received, limits: Limits) -> bool:
    if limits.cost != UNBOUNDED:
        raise Heavy
    return True


def spin_if_heavy(body: Received, limits: Limits) -> None:
    is_heavy(body, limits)
    spin(body, limits)


BODY = Received(b"abc", "", "identity", None)


def within(seconds: float) -> Deadline:
    return Deadline(time.perf_counter(), seconds)


def with_decoders(test: Callable[[Decoders], Awaitable[T]]) -> T:
    async def run() -> T:
        decoders = Decoders(Settings(decode_timeout=60))
        await decoders.start()
        try:
            return await test(decoders)
        finally:
            await decoders.stop()

    return asyncio.run(run())


def error_of(work: Callable[[Received, Limits], object]) -> tuple[str, str]:
    """Return word and detail of the error that decoding ends in; afterwards the next body is decoded."""

    async def run(decoders: Decoders) -> tuple[str, str]:
        with pytest.raises(ServiceError) as caught:
            await decoders.decode(work, BODY, within(30))
        assert await decoders.decode(process_id, BODY, within(30)) != os.getpid()
        return caught.value.reason.word, caught.value.detail

    return with_decoders(run)


def test_light_work_is_done_at_once() -> None:
    """What does not raise Heavy runs in this process."""
    assert with_decoders(lambda decoders: decoders.decode(lambda *_: os.getpid(), BODY, within(30))) == os.getpid()


def test_the_largest_webp_is_decoded() -> None:
    """It goes to the process for heavy bodies before it is opened, for which the ordinary ones lack memory."""
    body = io.BytesIO()
    Image.new("RGB", (4096, 4096)).save(body, "WEBP")
    received = Received(body.getvalue(), "image/webp", "identity", None)
    pixels = with_decoders(lambda decoders: decoders.decode(pixels_of, received, within(30)))
    assert pixels.shape == (1, 3, 32, 32)


def test_an_error_comes_back_whole() -> None:
    """The word and the detail of a ServiceError cross the process boundary."""
    assert error_of(refuse) == ("not_an_image", "3 bytes")


def test_errors_are_let_go() -> None:
    """The errors of bodies, whose tracebacks hold the bodies, do not wait for the garbage collector."""

    async def run(decoders: Decoders) -> int:
        errors = []
        gc.disable()
        for _ in range(20):
            try:
                await decoders.decode(refuse, BODY, within(30))
            except ServiceError as error:
                errors.append(weakref.ref(error))
        alive = [error() is not None for error in errors].count(True)
        gc.enable()
        return alive

    assert with_decoders(run) <= 1  # the last one, which a thread of the pool holds


def test_a_decoder_that_outlives_its_deadline_is_killed() -> None:
    """The requests end with their deadline's error, their processes end, and the places are filled again."""

    async def run(decoders: Decoders) -> None:
        before = {await decoders.decode(process_id, BODY, within(30)) for _ in range(8)}
        spinning = [decoders.decode(spin, BODY, within(0.5)) for _ in range(8)]
        errors = await asyncio.gather(*spinning, return_exceptions=True)
        assert {str(error) for error in errors} == {"no answer within 0.5 s"}
        assert await decoders.decode(process_id, BODY, within(30)) not in before
        await eventually(lambda: not any(map(psutil.pid_exists, before)))

    with_decoders(run)


def test_memory_is_bounded() -> None:
    """A body that wants more than the bound is refused; the process goes on."""
    assert error_of(allocate)[0] == "too_large"


def test_a_decoder_that_ends_costs_its_own_request_only() -> None:
    """A crash of the decoder is an error of the body that caused it."""
    assert error_of(end)[0] == "unacceptable"


def test_heavy_bodies_have_a_lane_of_their_own() -> None:
    """While heavy bodies hold their lane, as many as there are, an ordinary one is decoded at once."""

    async def run(decoders: Decoders) -> None:
        assert await decoders.decode(is_heavy, BODY, within(30))
        flood = [asyncio.create_task(decoders.decode(spin_if_heavy, BODY, within(60))) for _ in range(16)]
        assert await decoders.decode(process_id, BODY, within(10)) != os.getpid()
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
            return {await lane.run(within(30), os.getpid) for _ in range(8)}
        finally:
            await lane.stop()

    assert os.getpid() not in asyncio.run(run())

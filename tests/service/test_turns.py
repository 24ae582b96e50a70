"""Turns of workers on shared cores."""

import asyncio
import select
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from service.errors import ServiceError
from service.settings import Settings
from service.workers import turns, wire
from service.workers.pool import Pool
from service.workers.status import State
from service.workers.turns import ACTIVE_SECONDS, SLICE_SECONDS, Cores, Turn
from tests.service.played import Lives, Process, Seen, ready

BATCH = 32
IMAGE = np.zeros((1, 3, 32, 32), np.uint8)


def turn(cores: Cores, resume: Callable[[], None] = lambda: None) -> Turn:
    return Turn(cores, BATCH, resume)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> SimpleNamespace:
    """A clock for the turns that stands at `now`."""
    held = SimpleNamespace(now=100.0)
    monkeypatch.setattr(turns, "time", SimpleNamespace(perf_counter=lambda: held.now))
    return held


def test_those_that_wait_are_resumed_in_their_order_before_the_one_that_ended() -> None:
    """A worker with a long queue begins again after every worker that waited meanwhile."""

    async def scenario() -> None:
        cores, order = Cores(), []
        busy = turn(cores)
        others = {name: turn(cores, lambda name=name: order.append(name)) for name in ("first", "second")}
        assert busy.begin()
        assert not any(other.begin() for other in others.values())
        busy.end(1)
        assert order == ["first", "second"]  # neither of them began, so the next is resumed at once

    asyncio.run(scenario())


def test_a_resumed_turn_holds_the_cores() -> None:
    """Only one worker is resumed if it begins, and the one that ended waits behind the others."""

    async def scenario() -> None:
        cores, began = Cores(), []
        busy = turn(cores)
        second = turn(cores, lambda: began.append(second.begin()))
        third = turn(cores, lambda: began.append(third.begin()))
        busy.begin(), second.begin(), third.begin()
        busy.end(1)
        assert began == [True]
        assert not busy.begin()
        second.end(1)
        assert began == [True, True]

    asyncio.run(scenario())


def test_as_many_begin_at_once_as_there_are_places() -> None:
    """Workers that leave cores to others do not wait for each other."""

    async def scenario() -> None:
        cores = Cores(places=2)
        assert [turn(cores).begin() for _ in range(3)] == [True, True, False]

    asyncio.run(scenario())


def test_a_worker_that_hangs_is_waited_for_only_so_long() -> None:
    """A turn begins after PATIENCE_SECONDS, although another has not ended."""

    async def scenario() -> None:
        cores, resumed = Cores(), asyncio.Event()
        waits = turn(cores, lambda: resumed.set() if waits.begin() else None)
        assert turn(cores).begin()
        began = time.perf_counter()
        assert not waits.begin()
        await asyncio.wait_for(resumed.wait(), 30)
        assert time.perf_counter() - began >= turns.PATIENCE_SECONDS

    asyncio.run(scenario())


def test_a_batch_is_short_while_others_are_active(clock: SimpleNamespace) -> None:
    """It has the images that run in SLICE_SECONDS by the last batch, and all that it may have once others are idle."""
    cores = Cores()
    own, other = turn(cores), turn(cores)
    own.begin()
    clock.now += 10 * SLICE_SECONDS / 4
    own.end(10)
    assert own.most_images == BATCH
    other.begin()
    other.end(1)
    assert own.most_images == 4
    clock.now += ACTIVE_SECONDS
    assert own.most_images == BATCH


def test_the_wait_for_a_turn_counts_as_time_of_the_batch(clock: SimpleNamespace) -> None:
    """The time that a batch keeps its worker from others begins when the worker wants its turn."""

    async def scenario() -> None:
        cores = Cores()
        other, own = turn(cores), turn(cores, lambda: own.begin() or None)
        other.begin()
        own.begin()
        clock.now += 0.03
        other.end(1)
        clock.now += 0.02
        assert own.end(1) == pytest.approx(0.05)

    asyncio.run(scenario())


def answered(process: Process) -> None:
    logits = np.zeros((1, 10), np.float32)
    process.link.sendall(wire.pack_result(wire.Result(logits, 0.0, 0.0, 0.0, 0.0, 0.0, 0)))


def lost(process: Process) -> None:
    process.link.close()


@pytest.mark.parametrize("end", [answered, lost])
def test_a_variant_waits_for_the_batch_of_another(end: Callable[[Process], None]) -> None:
    """The batch of one pool is sent when that of the other is answered, or its worker is lost."""

    async def act(pools: list[Pool], processes: list[Process]) -> None:
        first, second = (process.link for process in processes)
        entries = pools[0].submit(IMAGE, 30) + pools[1].submit(IMAGE, 30)
        await asyncio.to_thread(wire.receive, first)
        assert not select.select([second], [], [], 0)[0]
        end(processes[0])
        await asyncio.to_thread(wire.receive, second)
        answered(processes[1])
        assert (await entries[1].answer).batch_size == 1
        with suppress(ServiceError):  # the first one ends as the parameter says
            await entries[0].answer

    beside(act)


def beside(act: Callable[[list[Pool], list[Process]], Coroutine[Any, Any, None]]) -> None:
    """Run the act with two ready pools of one played worker each, on the same cores."""

    async def scenario() -> None:
        cores, lives = Cores(), [Lives((ready(),)), Lives((ready(),))]
        seen = [Seen(), Seen()]
        pools = [Pool("fp32", Settings(), [spawn], its, [cores]) for spawn, its in zip(lives, seen, strict=True)]
        tasks = [asyncio.create_task(pool.supervise()) for pool in pools]
        try:
            for pool, its in zip(pools, seen, strict=True):
                await its.until(lambda pool=pool: pool.state == State.READY)
            await act(pools, [spawn.processes[0] for spawn in lives])
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    asyncio.run(scenario())

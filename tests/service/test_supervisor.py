"""A worker that ends, refuses or cannot be ended: its state says so, it is tried again, and no other is affected."""

import asyncio
import errno
import os
import re
from typing import Any, NoReturn

import numpy as np
import pytest

from service.errors import REASONS
from service.settings import Settings
from service.workers import supervisor, wire
from service.workers.pool import Pool, Unobserved
from tests.service.played import ENDS, LOADS, Lives, Scene, play, ready, refused

SHORTAGE = "can't start new thread"


@pytest.fixture
def pauses(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The pauses that the supervision asks for, in seconds. None of them is waited for."""
    slept: list[float] = []
    sleep = asyncio.sleep

    async def note(seconds: float) -> None:
        slept.append(seconds)
        await sleep(0)

    monkeypatch.setattr(supervisor.asyncio, "sleep", note)
    return slept


def test_a_worker_that_is_given_up_is_tried_again_each_minute(pauses: list[float]) -> None:
    """`failed` after five starts in a row, with growing pauses; it stays so until a later attempt is ready."""

    async def act(scene: Scene) -> None:
        await scene.seen.until(lambda: scene.seen.states[-1:] == ["ready"])

    lives = Lives(*[(ENDS,)] * 7, (ready(),))
    scene = play(act, lives)
    assert scene.seen.states == ["starting"] * 5 + ["failed"] * 3 + ["ready"]
    assert pauses == [0.2, 0.4, 0.8, 1.6, 60.0, 60.0, 60.0]
    assert scene.seen.restarts == ["died"] * 7
    assert len(lives.processes) == 8


def test_a_variant_tells_how_long_it_took_to_be_ready(pauses: list[float], caplog: pytest.LogCaptureFixture) -> None:
    """One line for each time that it becomes ready, and none for further changes while it is."""

    async def act(scene: Scene) -> None:
        await scene.seen.until(lambda: scene.seen.workers == ["ready", "ready"])
        for process in scene.processes[:2]:
            process.link.close()
        await scene.seen.until(lambda: scene.seen.workers == ["starting", "starting"])
        await scene.seen.until(lambda: scene.seen.workers == ["ready", "ready"])

    caplog.set_level("INFO", "service.workers.pool")
    play(act, Lives((ready(),)), Lives((ready(),)))
    assert [re.sub(r"\d+\.\d", "N", line) for line in caplog.messages if "ready" in line] == [
        "fp32 is ready after N s"
    ] * 2


def test_a_death_is_told_with_its_signal(pauses: list[float]) -> None:
    """The observer and the variant's reason name it; the reason goes once the variant is ready, the death stays."""

    async def act(scene: Scene) -> None:
        await scene.seen.until(lambda: scene.pool.state == "failed")
        assert scene.pool.reason.startswith("5 starts in a row ended: the worker died: SIGKILL")
        await scene.seen.until(lambda: scene.pool.state == "ready")
        assert scene.pool.reason == ""
        assert scene.pool.last_death == scene.seen.deaths[-1]

    scene = play(act, Lives(*[(ENDS,)] * 5, (ready(),)))
    assert [death.cause for death in scene.seen.deaths if death] == ["SIGKILL"] * 5


def test_a_client_is_told_to_wait_until_the_next_attempt() -> None:
    """The Retry-After of `failed` is the pause before the next attempt."""
    assert REASONS["failed"].retry_after == supervisor.RETRY_SECONDS


def test_one_that_was_given_up_and_dies_young_again_is_not_started_in_a_hurry(pauses: list[float]) -> None:
    """A moment of readiness does not reset the count of failures."""

    async def act(scene: Scene) -> None:
        await scene.seen.until(lambda: len(scene.processes) > 6)

    scene = play(act, Lives(*[(ENDS,)] * 5, (ready(), ENDS), (ready(),)))
    assert pauses[3:6] == [1.6, 60.0, 60.0]
    assert scene.seen.states[-4:] == ["ready", "starting", "failed", "ready"]


def test_a_refused_load_is_tried_again(pauses: list[float]) -> None:
    """Weights may be repaired: `failed` with the reason, and `ready` a minute later."""
    reasons: list[str] = []

    async def act(scene: Scene) -> None:
        await scene.seen.until(lambda: scene.pool.state == "failed")
        reasons.append(scene.pool.reason)
        await scene.seen.until(lambda: scene.pool.state == "ready")

    play(act, Lives((refused("failed", "damaged"),), (ready(),)))
    assert (reasons, pauses) == (["damaged"], [60.0])


def test_what_the_machine_cannot_run_is_not_tried_again(pauses: list[float]) -> None:
    """`unavailable` ends the supervision of a worker that never was ready."""

    async def act(scene: Scene) -> None:
        await asyncio.wait_for(scene.task, 30)
        assert (scene.pool.state, scene.pool.reason) == ("unavailable", "no GPU")

    scene = play(act, Lives((refused("unavailable", "no GPU"),)))
    assert (len(scene.processes), pauses, scene.seen.restarts) == (1, [], [])


@pytest.mark.parametrize("state", ["unavailable", "failed"])
@pytest.mark.parametrize(("device", "reason"), [("cuda:0", "device_lost"), ("cpu", "died")])
def test_a_refusal_after_it_was_ready_is_a_loss(pauses: list[float], state: str, device: str, reason: str) -> None:
    """A GPU fell off the bus: the loss is counted, the worker is tried again and is ready once the GPU is back."""

    async def act(scene: Scene) -> None:
        await scene.seen.until(lambda: scene.pool.state == "ready" and len(scene.processes) == 3)

    scene = play(act, Lives((ready(device), ENDS), (refused(state, "gone"),), (ready(device),)))
    assert scene.seen.restarts == ["died", reason]
    assert scene.seen.states == ["starting", "ready", "starting", "starting", "starting", "ready"]
    assert pauses == [0.2, 0.4]


def test_a_gpu_that_stays_away_is_a_failure(pauses: list[float]) -> None:
    """The variant is `failed`, not `unavailable`, which alerts and readiness ignore."""

    async def act(scene: Scene) -> None:
        await scene.seen.until(lambda: scene.pool.state == "failed")
        assert scene.pool.reason == "5 starts in a row ended: gone"

    scene = play(act, Lives((ready("cuda:0"), ENDS), *[(refused("unavailable", "gone"),)] * 4, LOADS))
    assert scene.seen.restarts == ["died", *["device_lost"] * 4]


def test_a_worker_that_cannot_be_ended_is_not_ready() -> None:
    """The variant is `starting` while the kernel does not let its process end."""

    async def act(scene: Scene) -> None:
        await scene.seen.until(lambda: scene.pool.state == "ready")
        (process,) = scene.processes
        process.link.close()
        assert await asyncio.to_thread(process.is_joined.wait, 30)
        assert (scene.pool.state, scene.pool.reason) == ("starting", "the worker died")
        assert scene.seen.states == ["starting", "ready", "starting"]
        assert not process.is_released.is_set()

    play(act, Lives((ready(),), stuck=True))


def test_a_shortage_of_threads_takes_no_worker_along(monkeypatch: pytest.MonkeyPatch, pauses: list[float]) -> None:
    """Without a thread to wait for its end, a lost worker is killed and replaced, and the other worker goes on."""
    to_thread = asyncio.to_thread

    async def act(scene: Scene) -> None:
        await scene.seen.until(lambda: scene.seen.workers == ["ready", "ready"])
        monkeypatch.setattr(supervisor.asyncio, "to_thread", refuse)
        scene.processes[0].link.close()
        await scene.seen.until(lambda: scene.seen.workers == ["starting", "ready"])
        await scene.seen.until(lambda: scene.seen.workers == ["ready", "ready"])
        assert not scene.task.done()

    async def refuse(*arguments: Any) -> None:
        monkeypatch.setattr(supervisor.asyncio, "to_thread", to_thread)
        raise RuntimeError(SHORTAGE)

    scene = play(act, Lives((ready(),)), Lives((ready(),)))
    assert [len(lives.processes) for lives in scene.lives] == [2, 1]
    assert scene.lives[0].processes[0].is_killed
    assert scene.seen.restarts == ["died"]


def test_a_worker_is_killed_though_nobody_waits_for_its_end() -> None:
    """The service stops within the half second that a lost worker gets to end by itself."""

    async def act(scene: Scene) -> None:
        await scene.seen.until(lambda: scene.pool.state == "ready")
        (process,) = scene.processes
        process.link.close()
        assert await asyncio.to_thread(process.is_joined.wait, 30)
        assert not process.is_killed
        scene.task.cancel()
        await asyncio.gather(scene.task, return_exceptions=True)
        assert process.is_killed

    play(act, Lives((ready(),), stuck=True))


def test_a_worker_that_is_ready_at_once_is_not_killed_as_hung(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that was started ahead may say so before the connection to it returns: the timer of its load is stopped."""

    async def act(scene: Scene) -> None:
        loop, timers = asyncio.get_running_loop(), []
        connect, call_later = loop.create_unix_connection, loop.call_later

        async def return_late(*arguments: Any, **options: Any) -> Any:
            connection = await connect(*arguments, **options)
            await scene.seen.until(lambda: scene.pool.state == "ready")
            return connection

        def note(delay: float, *arguments: Any) -> asyncio.TimerHandle:
            timer = call_later(delay, *arguments)
            if delay == scene.pool.settings.load_timeout:
                timers.append(timer)
            return timer

        monkeypatch.setattr(loop, "create_unix_connection", return_late)
        monkeypatch.setattr(loop, "call_later", note)
        await scene.seen.until(lambda: scene.pool.state == "ready")
        scene.pool.submit(np.zeros((1, 3, 32, 32), np.uint8), 30)
        await asyncio.to_thread(scene.processes[0].link.recv, 1)
        assert [timer.cancelled() for timer in timers] == [True]

    play(act, Lives((ready(),)))


def test_a_new_process_has_no_memory_of_the_last_one() -> None:
    """The allocator's numbers of the lost process are not shown for the process that loads now."""

    async def act(scene: Scene) -> None:
        await scene.seen.until(lambda: scene.pool.state == "ready")
        assert [process.allocator for process in scene.pool.processes] == [{"reserved": 7}]
        scene.processes[0].link.close()
        await scene.seen.until(lambda: len(scene.processes) == 2 and scene.pool.state == "ready")
        assert [process.allocator for process in scene.pool.processes] == [{}]

    held = wire.pack_allocator({"reserved": 7})
    play(act, Lives((held, ready("cuda:0")), (ready("cuda:0"),)))


def test_all_workers_are_observed(pauses: list[float]) -> None:
    """The observer learns the best state as the variant's, each worker's state, and each ready worker's info."""

    async def act(scene: Scene) -> None:
        assert scene.seen.states == []
        await scene.seen.until(lambda: sorted(scene.seen.workers) == ["failed", "ready", "ready"])
        assert scene.seen.states[0] == "starting"
        assert scene.seen.states[-1] == "ready"
        assert [info.device for info in scene.seen.infos] == ["cuda:0", "cuda:2"]

    play(act, Lives((ready("cuda:0"),)), Lives((refused("failed"),), LOADS), Lives((ready("cuda:2"),)))


def test_a_shortage_of_processes_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that cannot be started (no process, no memory) is tried again, and never given up for that."""
    monkeypatch.setattr(supervisor, "SHORTAGE_SECONDS", 0.0)
    shortage = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    attempts: list[int] = []
    enough = asyncio.Event()

    def spawn() -> NoReturn:
        attempts.append(1)
        if len(attempts) == 2 * supervisor.MAX_FAILURES:
            enough.set()
        raise shortage

    async def scenario() -> None:
        pool = Pool("int8", Settings(), [spawn], Unobserved())
        task = asyncio.create_task(pool.supervise())
        await asyncio.wait_for(enough.wait(), 30)
        assert not task.done()
        assert (pool.state, pool.reason) == ("starting", f"no worker could be started: {shortage}")
        task.cancel()

    asyncio.run(scenario())

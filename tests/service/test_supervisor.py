"""A worker that ends, refuses or cannot be ended: its state says so, it is tried again, and no other is taken along.

The processes are played by `Process`: whatever one has to say is in its socket from the start.
"""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

import pytest

from service.errors import REASONS
from service.settings import Settings
from service.workers import supervisor, wire
from service.workers.pool import Pool, Unobserved
from service.workers.status import Refusal, State, WorkerInfo
from tests.service import fakes

ENDS = b""
"""As the last message of a process: it closes its socket. Without it the process stays."""
LOADS: tuple[bytes, ...] = ()
"""The script of a process that says nothing yet."""
SHORTAGE = "can't start new thread"


def ready(device: str = "cpu") -> bytes:
    return wire.message(wire.READY, fakes.worker_info(device=device))


def refused(state: str, reason: str = "no such thing") -> bytes:
    return wire.message(wire.REFUSED, Refusal(State(state), reason))


class Process:
    """Stands for a worker process; `join` returns at once, or, if it is `stuck`, when it is released."""

    pid = 1

    def __init__(self, link: socket.socket, said: tuple[bytes, ...], stuck: bool) -> None:
        self.link = link.dup()
        self.is_killed = False
        self.is_joined = threading.Event()
        self.is_released = threading.Event()
        if not stuck:
            self.is_released.set()
        self.link.sendall(b"".join(said))
        if said and said[-1] == ENDS:
            self.link.close()

    def join(self, timeout: float | None = None) -> None:
        self.is_joined.set()
        self.is_released.wait(30)

    def kill(self) -> None:
        self.is_killed = True

    def close(self) -> None:
        self.link.close()


class Lives:
    """A Spawn: each process says its part of the script, and all further ones the last part."""

    def __init__(self, *script: tuple[bytes, ...], stuck: bool = False) -> None:
        self.script = script
        self.stuck = stuck
        self.processes: list[Process] = []

    def __call__(self, link: socket.socket) -> Any:
        said = self.script[min(len(self.processes), len(self.script) - 1)]
        self.processes.append(Process(link, said, self.stuck))
        return self.processes[-1]


class Seen(Unobserved):
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.states: list[State] = []
        self.workers: list[State] = []
        self.infos: list[WorkerInfo] = []
        self.restarts: list[str] = []
        self._news = asyncio.Event()

    def state(self, variant: str, state: State, workers: list[State], infos: list[WorkerInfo]) -> None:
        self.states.append(state)
        self.workers, self.infos = workers, infos
        self._news.set()

    def restart(self, variant: str, reason: str) -> None:
        self.restarts.append(reason)

    async def until(self, condition: Callable[[], Any]) -> None:
        """Wait for a state in which the condition holds."""
        async with asyncio.timeout(30):
            while not condition():
                self._news.clear()
                await self._news.wait()


class Scene:
    """A pool of played workers under supervision."""

    def __init__(self, *spawns: Lives) -> None:
        self.lives = spawns
        self.seen = Seen()
        self.pool = Pool("fp32", Settings(), spawns, self.seen)
        self.task = asyncio.create_task(self.pool.supervise())

    async def end(self) -> None:
        for process in self.processes:
            process.is_released.set()
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)

    @property
    def processes(self) -> list[Process]:
        return [process for lives in self.lives for process in lives.processes]


def play(act: Callable[[Scene], Coroutine[Any, Any, None]], *spawns: Lives) -> Scene:
    """Run the act with these workers, and return the scene after its end."""

    async def scenario() -> Scene:
        scene = Scene(*spawns)
        try:
            await act(scene)
        finally:
            await scene.end()
        return scene

    with ExitStack() as stack:
        for lives in spawns:
            stack.callback(lambda lives=lives: [process.link.close() for process in lives.processes])
        return asyncio.run(scenario())


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

"""Worker processes that are played: whatever one has to say is in its socket from the start."""

import asyncio
import socket
import threading
from collections.abc import Callable, Coroutine
from contextlib import ExitStack
from typing import Any

from service.settings import Settings
from service.workers import wire
from service.workers.death import Death
from service.workers.pool import Pool, Unobserved
from service.workers.status import Refusal, State, WorkerInfo
from tests.service import fakes

ENDS = b""
"""As the last message of a process: it closes its socket. Without it the process stays."""
LOADS: tuple[bytes, ...] = ()
"""The script of a process that says nothing yet."""


def ready(device: str = "cpu") -> bytes:
    return wire.message(wire.READY, fakes.worker_info(device=device))


def refused(state: str, reason: str = "no such thing") -> bytes:
    return wire.message(wire.REFUSED, Refusal(State(state), reason))


class Process:
    """Stands for a worker process; `join` returns at once, or, if it is `stuck`, when it is released."""

    pid = 1
    exitcode = -9

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

    def __call__(self) -> Any:
        said = self.script[min(len(self.processes), len(self.script) - 1)]
        ours, theirs = socket.socketpair()
        with theirs:
            self.processes.append(Process(theirs, said, self.stuck))
        return self.processes[-1], ours


class Seen(Unobserved):
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.states: list[State] = []
        self.workers: list[State] = []
        self.infos: list[WorkerInfo] = []
        self.restarts: list[str] = []
        self.deaths: list[Death | None] = []
        self._news = asyncio.Event()

    def state(self, variant: str, state: State, workers: list[State], infos: list[WorkerInfo]) -> None:
        self.states.append(state)
        self.workers, self.infos = workers, infos
        self._news.set()

    def restart(self, variant: str, reason: str, death: Death | None) -> None:
        self.restarts.append(reason)
        self.deaths.append(death)

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

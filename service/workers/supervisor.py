"""One worker process as the HTTP process sees it: it starts the process, feeds, watches and replaces it."""

import asyncio
import logging
import math
import multiprocessing
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol

from service.errors import ServiceError
from service.settings import Settings
from service.workers import wire
from service.workers.death import Death, Watch, reap
from service.workers.queue import Answer, Entry
from service.workers.status import Failure, Refusal, State, WorkerInfo
from service.workers.wire import Result

logger = logging.getLogger(__name__)


class Started(NamedTuple):
    """A worker process that was started, and this side's end of the socket pair that it serves."""

    process: multiprocessing.process.BaseProcess
    link: socket.socket


Spawn = Callable[[], Started]
"""Starts a worker process."""

MAX_FAILURES = 5
"""Starts in a row that fail, or end within HEALTHY_SECONDS of being ready, until a worker is given up."""
HEALTHY_SECONDS = 30.0
MAX_BACKOFF = 10.0
RETRY_SECONDS = 60.0
"""Pause between attempts to start a worker that was given up. It is the Retry-After of `failed` (service.errors)."""
SHORTAGE_SECONDS = 1.0
"""Pause between attempts while the machine has no process, file or memory to spare."""


class WorkerDied(Exception):
    """The worker ended, or is ended because it hung or its GPU failed; `reason` is the metric's label."""

    def __init__(self, reason: str, detail: str, death: Death | None = None) -> None:
        super().__init__(detail)
        self.reason = reason
        self.death = death


class Silence(Exception):
    """The worker's socket ended without a word: its process died."""


class Refused(Exception):
    """The worker cannot serve, as its refusal says."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class Owner(Protocol):
    """The pool that the worker works for."""

    def changed(self) -> None:
        """Learn that the worker's state changed."""

    def dispatch(self) -> None:
        """Give the idle worker a batch if one waits."""

    def executed(self, result: Result, seconds: float) -> None:
        """Learn that a batch was executed, which kept the worker from others for so many seconds."""

    def poisoned(self, entries: list[Entry]) -> None:
        """Take back entries that shared a batch which made the engine raise."""

    def restarted(self, reason: str, death: Death | None) -> None:
        """Learn that the process was lost and is started again, and how it died if it did so by itself."""


class Worker:
    """A supervised worker process. It holds at most one batch.

    `reason` explains the `state` in words. `info` is None until the worker is ready for the first time. `allocator` is
    what the running process's GPU allocator held at the last change: kind -> bytes.
    """

    def __init__(self, name: str, settings: Settings, spawn: Spawn, owner: Owner) -> None:
        self.name = name
        self.settings = settings
        self.state = State.STARTING
        self.reason = ""
        self.info: WorkerInfo | None = None
        self.allocator: dict[str, int] = {}
        self.pid: int | None = None
        self._failures = 0
        self._spawn = spawn
        self._owner = owner
        self._held: list[Entry] = []
        self._held_since = 0.0
        self._held_images = 0
        self._link: wire.Link
        self._link_is_up = False
        self._hang_timer: asyncio.TimerHandle | None = None

    @property
    def is_idle(self) -> bool:
        """True if the worker can take a batch."""
        return self._link_is_up and not self._held

    @property
    def held_images(self) -> int:
        """The number of images in the batch that the worker executes."""
        return self._held_images if self._held else 0

    def execute(self, batch: list[Entry]) -> None:
        """Send a batch to the idle worker. Its entries end when the worker answers or is lost."""
        self._held, self._held_since = batch, time.perf_counter()
        self._held_images = sum(len(entry.pixels) for entry in batch)
        self._link.send(wire.pack_pixels([entry.pixels for entry in batch]))
        self._expect_within(self.settings.hang_timeout, "the worker hung: no answer")

    async def supervise(self) -> None:
        """Keep the process running until cancelled, or until the worker says that this machine cannot run it.

        A worker that is given up stays `failed` until a later attempt is ready.
        """
        while True:
            self._ready_since = math.inf
            try:
                await self._run()
            except Refused as refused:
                self._enter(refused.refusal.state, refused.refusal.reason)
                if refused.refusal.state == State.UNAVAILABLE:
                    return
                self._failures = MAX_FAILURES
            except OSError as error:  # a shortage of the machine, which may pass: the worker is not given up
                logger.error("%s: no worker could be started: %s", self.name, error)
                state = State.FAILED if self._is_given_up else State.STARTING
                self._enter(state, f"no worker could be started: {error}")
                await asyncio.sleep(SHORTAGE_SECONDS)
                continue
            except WorkerDied as death:
                self._count(death)
            except Exception as error:
                logger.exception("%s: its supervision raised", self.name)
                self._count(WorkerDied("died", f"{type(error).__name__}: {error}"))
            await asyncio.sleep(RETRY_SECONDS if self._is_given_up else min(MAX_BACKOFF, 0.1 * 2**self._failures))

    @property
    def _is_given_up(self) -> bool:
        return self._failures >= MAX_FAILURES

    def _count(self, death: WorkerDied) -> None:
        was_healthy = time.monotonic() - self._ready_since > HEALTHY_SECONDS
        self._failures = 1 if was_healthy else self._failures + 1
        logger.error("%s: %s (failure %d)", self.name, death, self._failures)
        self._owner.restarted(death.reason, death.death)
        if self._is_given_up:
            self._enter(State.FAILED, f"{self._failures} starts in a row ended: {death}")
        else:
            self._enter(State.STARTING, str(death))

    async def _run(self) -> None:
        """Run one process until it ends.

        Raises:
            WorkerDied: it ended, or was ended.
            Refused: it cannot serve.
            OSError: it could not be started.
        """
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.allocator = {}
        process, ours = self._spawn()
        assert process.pid is not None
        self.pid, self._watch = process.pid, Watch(process.pid)
        try:
            with suppress(Silence):
                await self._talk(ours)
        finally:
            self.pid = None
            self._ended.cancel()  # nobody waits for it any more
            self._watch.stop()
            exit_code = await reap(process)
        death = self._watch.death(exit_code)
        raise WorkerDied("died", str(death), death)

    async def _talk(self, ours: socket.socket) -> None:
        """Connect to the started process and serve it until one side gives up."""
        self._link = wire.Link(self._receive, lambda: self._end(Silence("the worker died")))
        # Before the connection, over which a worker that was started ahead may at once say that it is ready.
        self._expect_within(self.settings.load_timeout, "the worker hung: not loaded")
        try:
            await asyncio.get_running_loop().create_unix_connection(lambda: self._link, sock=ours)
            await self._ended
        finally:
            self._link_is_up = False
            self._stop_timer()
            lost = f"the {self.name} worker was lost while it held this request; try again"
            self._lose_held(ServiceError("worker_lost", lost))
            self._link.close()

    def _receive(self, kind: bytes, payload: bytes) -> None:
        if kind == wire.ALLOCATOR:
            self.allocator = wire.unpack_allocator(payload)
            return
        self._stop_timer()
        if kind == wire.REFUSED:
            self._end(self._refused(wire.parse(Refusal, payload)))
            return
        if kind == wire.READY:
            self._begin(wire.parse(WorkerInfo, payload))
        elif kind == wire.RESULT:
            self._deliver(payload)
        else:
            self._fail_held(wire.parse(Failure, payload))
        self._owner.dispatch()

    def _begin(self, info: WorkerInfo) -> None:
        self._watch.read()  # the worker may die before a second has passed
        self.info = info
        self._link_is_up = True
        self._ready_since = time.monotonic()
        self._enter(State.READY, "")

    def _refused(self, refusal: Refusal) -> Exception:
        """Return what a refusal means: a fault of the machine or the weights, or, after it was ready, a loss."""
        if self.info is None:
            return Refused(refusal)
        return WorkerDied("died" if self.info.device == "cpu" else "device_lost", refusal.reason)

    def _deliver(self, payload: bytes) -> None:
        """Answer the entries of the batch, each with its part of the logits."""
        assert self.info is not None
        result = wire.unpack_result(payload, len(self.info.classes))
        entries, self._held = self._held, []
        first, size = 0, len(result.logits)
        self._owner.executed(result, time.perf_counter() - self._held_since)
        for entry in entries:
            last = first + len(entry.pixels)
            entry.succeed(Answer(_part(result, first, last), size, self.info))
            first = last

    def _fail_held(self, failure: Failure) -> None:
        """Handle a batch that the engine could not run: end the worker, run its entries alone, or fail the only one."""
        if failure.word == "device_lost":
            self._lose_held(ServiceError(failure.word, f"{failure.detail}; the worker starts again, try again"))
            self._end(WorkerDied(failure.word, failure.detail))
            return
        entries, self._held = self._held, []
        if len(entries) > 1:
            self._owner.poisoned(entries)
        else:
            entries[0].fail(ServiceError(failure.word, failure.detail))

    def _lose_held(self, error: ServiceError) -> None:
        entries, self._held = self._held, []
        for entry in entries:
            entry.fail(error)

    def _expect_within(self, seconds: float, complaint: str) -> None:
        """End the worker as hung unless it says something within `seconds`."""
        death = WorkerDied("hung", f"{complaint} within {seconds:g} s")
        self._hang_timer = asyncio.get_running_loop().call_later(seconds, self._end, death)

    def _stop_timer(self) -> None:
        if self._hang_timer is not None:
            self._hang_timer.cancel()

    def _end(self, error: Exception) -> None:
        """End this life of the worker with the error."""
        self._link_is_up = False
        if self._ended.done():
            return
        self._ended.set_exception(error)
        if self.state == State.READY:  # at once, for the process may take long to end
            self._enter(State.STARTING, str(error))

    def _enter(self, state: State, reason: str) -> None:
        if state in (State.FAILED, State.UNAVAILABLE):
            logger.warning("%s is %s: %s", self.name, state, reason)
        self.state, self.reason = state, reason
        self._owner.changed()


def _part(result: Result, first: int, last: int) -> Result:
    """Return the result with the logits of one entry only."""
    return Result(
        result.logits[first:last],
        result.started,
        result.finished,
        result.copy_in,
        result.inference,
        result.copy_out,
        result.memory_bytes,
    )

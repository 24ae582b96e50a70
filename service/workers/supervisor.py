"""One worker process seen from the HTTP process: started, fed, watched, replaced."""

import asyncio
import json
import logging
import math
import multiprocessing
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

from service.errors import ServiceError
from service.settings import Settings
from service.workers import wire
from service.workers.queue import Answer, Entry
from service.workers.wire import Result

logger = logging.getLogger(__name__)

Spawn = Callable[[socket.socket], multiprocessing.process.BaseProcess]
"""Starts a worker process that serves the given end of a socket pair."""

MAX_FAILURES = 5
"""Starts in a row that may fail, or die within HEALTHY_SECONDS of being ready, before a worker is given up."""
HEALTHY_SECONDS = 30.0
MAX_BACKOFF = 10.0
RETRY_SECONDS = 60.0
"""Between attempts to start a worker that was given up: what a client is told to wait (service.errors)."""
SHORTAGE_SECONDS = 1.0
"""Between attempts while the machine has no process, file or memory to spare."""


class WorkerDied(Exception):
    """The worker ended, or can do nothing more (it hung, its GPU failed) and will; `reason` is the metric's label."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Refused(Exception):
    """The worker said why it cannot serve: `{"state": ..., "reason": ...}`."""


class Owner(Protocol):
    """Who the worker works for (the pool)."""

    def changed(self) -> None:
        """The worker's state changed."""

    def idle(self) -> None:
        """The worker can take a batch."""

    def executed(self, result: Result) -> None:
        """A batch was executed."""

    def poisoned(self, entries: list[Entry]) -> None:
        """These entries shared a batch that made the engine raise."""

    def restarted(self, reason: str) -> None:
        """The process was lost and is started again."""


class Worker:
    """A supervised worker process; holds at most one batch.

    `state` is `starting`, `ready`, `failed` or `unavailable`, with `reason` in words. `card` describes its engine once
    it was ready, `allocator` what the running process's GPU allocator held at the last change.
    """

    def __init__(self, name: str, settings: Settings, spawn: Spawn, owner: Owner) -> None:
        self.name = name
        self.settings = settings
        self.state = "starting"
        self.reason = ""
        self.card: dict[str, Any] = {}
        self.allocator: dict[str, int] = {}
        self.pid: int | None = None
        self._failures = 0
        self._spawn = spawn
        self._owner = owner
        self._held: list[Entry] = []
        self._transport: asyncio.WriteTransport
        self._link_is_up = False
        self._patience: asyncio.TimerHandle | None = None

    @property
    def idle(self) -> bool:
        return self._link_is_up and not self._held

    def execute(self, batch: list[Entry]) -> None:
        """Send a batch to the idle worker; its entries are answered when the worker answers or is lost."""
        self._held = batch
        self._transport.write(wire.frame(wire.BATCH, b"".join(entry.pixels.tobytes() for entry in batch)))
        self._expect_within(self.settings.hang_timeout, "the worker hung: no answer")

    async def supervise(self) -> None:
        """Keep the process running until cancelled, or until the worker says that this machine cannot run it.

        One that is given up stays `failed` until a later attempt is ready.
        """
        while True:
            self._ready_since = math.inf
            try:
                await self._run()
            except Refused as refused:
                self._enter(**refused.args[0])
                if self.state == "unavailable":
                    return
                self._failures = MAX_FAILURES
            except OSError as error:  # not the worker's fault, and it may pass: never given up
                logger.error("%s: no worker could be started: %s", self.name, error)
                self._enter("failed" if self._is_given_up else "starting", f"no worker could be started: {error}")
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
        self._owner.restarted(death.reason)
        if self._is_given_up:
            self._enter("failed", f"{self._failures} starts in a row ended: {death}")
        else:
            self._enter("starting", str(death))

    async def _run(self) -> None:
        """One life of the process. Raises WorkerDied or Refused; OSError where it could not begin."""
        self._ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self.allocator = {}
        ours, theirs = socket.socketpair()
        try:
            with theirs:
                process = self._spawn(theirs)
        except BaseException:
            ours.close()
            raise
        self.pid = process.pid
        try:
            await self._talk(ours)
        finally:
            self.pid = None
            self._ended.cancel()  # where it has not ended: nobody waits for that any more
            await _reap(process)

    async def _talk(self, ours: socket.socket) -> None:
        """From the connection to a started process until one side gives up."""
        link = wire.Link(self._receive, lambda: self._end(WorkerDied("died", "the worker died")))
        self._transport, _ = await asyncio.get_running_loop().create_unix_connection(lambda: link, sock=ours)
        self._expect_within(self.settings.load_timeout, "the worker hung: not loaded")
        try:
            await self._ended
        finally:
            self._link_is_up = False
            self._stop_expecting()
            lost = f"the {self.name} worker was lost while it held this request; try again"
            self._lose_held(ServiceError("worker_lost", lost))
            self._transport.abort()

    def _receive(self, kind: bytes, payload: bytes) -> None:
        if kind == wire.ALLOCATOR:
            self.allocator = json.loads(payload)
            return
        self._stop_expecting()
        if kind == wire.READY:
            self.card = json.loads(payload)
            self._link_is_up = True
            self._ready_since = time.monotonic()
            self._enter("ready", "")
        elif kind == wire.REFUSED:
            self._end(self._refused(json.loads(payload)))
            return
        elif kind == wire.RESULT:
            self._deliver(wire.unpack_result(payload))
        else:
            self._fail_held(**json.loads(payload))
        self._owner.idle()

    def _refused(self, refusal: dict[str, str]) -> Exception:
        """A refusal is the machine's or the weights'; of what was ready before, it is a loss like any other."""
        if not self.card:
            return Refused(refusal)
        return WorkerDied("died" if self.card["device"] == "cpu" else "device_lost", refusal["reason"])

    def _deliver(self, result: Result) -> None:
        entries, self._held = self._held, []
        first, size = 0, len(result.logits)
        self._owner.executed(result)
        for entry in entries:
            last = first + len(entry.pixels)
            if not entry.answer.done():
                entry.answer.set_result(Answer(_part(result, first, last), size, self.card))
            first = last

    def _fail_held(self, word: str, detail: str) -> None:
        """The engine has no answer to the batch in hand."""
        if word == "device_lost":
            self._lose_held(ServiceError(word, f"{detail}; the worker starts again, try again"))
            self._end(WorkerDied(word, detail))
            return
        entries, self._held = self._held, []
        if len(entries) > 1:
            self._owner.poisoned(entries)
        else:
            entries[0].fail(ServiceError(word, detail))

    def _lose_held(self, error: ServiceError) -> None:
        entries, self._held = self._held, []
        for entry in entries:
            entry.fail(error)

    def _expect_within(self, seconds: float, complaint: str) -> None:
        death = WorkerDied("hung", f"{complaint} within {seconds:g} s")
        self._patience = asyncio.get_running_loop().call_later(seconds, self._end, death)

    def _stop_expecting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()

    def _end(self, error: Exception) -> None:
        self._link_is_up = False
        if self._ended.done():
            return
        self._ended.set_exception(error)
        if self.state == "ready":  # now: how long the process takes to be gone is not known
            self._enter("starting", str(error))

    def _enter(self, state: str, reason: str) -> None:
        if state in ("failed", "unavailable"):
            logger.warning("%s is %s: %s", self.name, state, reason)
        self.state, self.reason = state, reason
        self._owner.changed()


def _part(result: Result, first: int, last: int) -> Result:
    return Result(
        result.logits[first:last],
        result.started,
        result.finished,
        result.copy_in,
        result.inference,
        result.copy_out,
        result.memory_bytes,
    )


async def _reap(process: multiprocessing.process.BaseProcess) -> None:
    """A worker that lost its socket ends by itself; one that does not (hung, loading) is killed, whatever happens here.

    One that cannot be killed (the kernel waits for a disk, a GPU) is waited for: another beside it would end alike.
    """
    try:
        await asyncio.to_thread(process.join, 0.5)
    finally:
        process.kill()  # nothing happens to one that has ended
    await asyncio.to_thread(process.join)
    process.close()

"""A variant in the HTTP process: its queue, its worker process, and the supervision that keeps the worker alive."""

import asyncio
import json
import logging
import multiprocessing
import socket
import time
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.engine import wire
from service.engine.queue import Entry, Queue
from service.engine.wire import Result
from service.errors import ServiceError
from service.settings import Settings

logger = logging.getLogger(__name__)

Spawn = Callable[[socket.socket], multiprocessing.process.BaseProcess]
"""Starts a worker process that serves the given end of a socket pair."""

MAX_FAILURES = 5
"""Starts in a row that may fail, or die within HEALTHY_SECONDS, before a variant is given up."""
HEALTHY_SECONDS = 30.0
MAX_BACKOFF = 10.0


class Observer(Protocol):
    """Who is told what happens (the metrics)."""

    def batch(self, variant: str, images: int) -> None: ...
    def restart(self, variant: str, reason: str) -> None: ...
    def state(self, variant: str, state: str, card: dict[str, Any]) -> None: ...


class WorkerDied(Exception):
    """The worker process ended, or was killed because it hung; `reason` is the metric's label."""

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(detail)
        self.reason = reason


class Refused(Exception):
    """The worker said why it cannot serve: `{"state": ..., "reason": ...}`."""


class Pool:
    """Accepts images for one variant and has them executed.

    `state` is `starting`, `ready`, `failed` or `unavailable`, with `reason` in words; `card` is what the worker said of
    its engine when it became ready.
    """

    def __init__(self, variant: str, settings: Settings, spawn: Spawn, observer: Observer) -> None:
        self.variant = variant
        self.settings = settings
        self.queue = Queue(settings.max_waiting_images)
        self.state = "starting"
        self.reason = ""
        self.card: dict[str, Any] = {}
        self.pid: int | None = None
        self._spawn = spawn
        self._observer = observer
        self._held: list[Entry] = []

    def submit(self, pixels: NDArray[np.uint8], timeout: float) -> list[Entry]:
        """Queue one request's `[n, 3, 32, 32] uint8` images, split into parts that fit a batch.

        Raises:
            ServiceError: `overloaded`, or the variant is not ready.
        """
        if self.state != "ready":
            raise ServiceError(
                self.state, f"{self.variant} is {self.state}" + (f": {self.reason}" if self.reason else "")
            )
        size = self.settings.max_batch_size
        entries = self.queue.put([pixels[i : i + size] for i in range(0, len(pixels), size)])
        for entry in entries:
            _expire(entry, timeout)
        return entries

    async def supervise(self) -> None:
        """Keep one worker running until cancelled, or until the variant is unavailable or given up."""
        failures = 0
        while True:
            self._enter("starting", self.reason)
            began = time.monotonic()
            try:
                await self._run_worker()
            except Refused as refused:
                self._give_up(**refused.args[0])
                return
            except WorkerDied as death:
                failures = 1 if time.monotonic() - began > HEALTHY_SECONDS else failures + 1
                logger.error("%s: %s; restart %d", self.variant, death, failures)
                self._observer.restart(self.variant, death.reason)
                if failures >= MAX_FAILURES:
                    self._give_up("failed", f"{failures} starts in a row ended: {death}")
                    return
                self._enter("starting", str(death))
            await asyncio.sleep(min(MAX_BACKOFF, 0.1 * 2**failures))

    async def _run_worker(self) -> None:
        ours, theirs = socket.socketpair()
        process = self._spawn(theirs)
        theirs.close()
        self.pid = process.pid
        reader, writer = await asyncio.open_unix_connection(sock=ours)
        try:
            await self._await_ready(reader)
            await self._serve(reader, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            await asyncio.to_thread(process.join, 1)
            raise WorkerDied("died", f"the worker died (exit code {process.exitcode})") from None
        finally:
            self.pid = None
            self._lose_held()
            writer.close()
            await self._reap(process)

    async def _await_ready(self, reader: asyncio.StreamReader) -> None:
        try:
            async with asyncio.timeout(self.settings.load_timeout):
                kind, payload = await wire.receive_async(reader)
        except TimeoutError:
            raise WorkerDied("hung", f"the worker did not load within {self.settings.load_timeout:g} s") from None
        document = json.loads(payload)
        if kind == wire.REFUSED:
            raise Refused(document)
        self.card = document
        self._enter("ready", "")

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Feed the worker batch by batch; a frame is awaited all the time, so that an idle worker's death is seen."""
        size, patience = self.settings.max_batch_size, self.settings.batch_timeout
        answer = asyncio.create_task(wire.receive_async(reader))
        taken = asyncio.create_task(self.queue.take(size, patience))
        try:
            while True:
                await asyncio.wait((answer, taken), return_when=asyncio.FIRST_COMPLETED)
                if not taken.done():
                    answer.result()
                self._held = taken.result()
                writer.write(wire.frame(wire.BATCH, b"".join(entry.pixels.tobytes() for entry in self._held)))
                await asyncio.wait((answer,), timeout=self.settings.hang_timeout)
                if not answer.done():
                    raise WorkerDied("hung", f"the worker hung: no answer within {self.settings.hang_timeout:g} s")
                self._deliver(*answer.result())
                answer = asyncio.create_task(wire.receive_async(reader))
                taken = asyncio.create_task(self.queue.take(size, patience))
        finally:
            answer.cancel()
            taken.cancel()
            await asyncio.gather(answer, taken, return_exceptions=True)

    def _deliver(self, kind: bytes, payload: bytes) -> None:
        entries, self._held = self._held, []
        if kind == wire.RESULT:
            result = wire.unpack_result(payload)
            size, first = len(result.logits), 0
            self._observer.batch(self.variant, size)
            for entry in entries:
                last = first + len(entry.pixels)
                part = Result(result.logits[first:last], *_measured(result))
                first = last
                if not entry.answer.done():
                    entry.answer.set_result((part, size))
        elif len(entries) > 1:
            self.queue.put_back(entries)
        else:
            entries[0].fail(
                ServiceError("internal", f"the engine could not run this request ({json.loads(payload)['detail']})")
            )

    def _lose_held(self) -> None:
        entries, self._held = self._held, []
        for entry in entries:
            entry.fail(
                ServiceError("worker_lost", f"the {self.variant} worker died while it held this request; try again")
            )

    def _enter(self, state: str, reason: str) -> None:
        self.state, self.reason = state, reason
        self._observer.state(self.variant, state, self.card)

    def _give_up(self, state: str, reason: str) -> None:
        logger.warning("%s is %s: %s", self.variant, state, reason)
        self._enter(state, reason)
        self.queue.fail_all(ServiceError(state, f"{self.variant} is {state}: {reason}"))

    async def _reap(self, process: multiprocessing.process.BaseProcess) -> None:
        """A worker that lost its socket ends by itself; one that does not (hung, loading) is killed."""
        await asyncio.to_thread(process.join, 0.5)
        if process.is_alive():
            process.kill()
            await asyncio.to_thread(process.join, 5)
        process.close()


def _expire(entry: Entry, timeout: float) -> None:
    """Fail the entry unless it is answered within `timeout` seconds."""
    error = ServiceError("deadline", f"no answer within {timeout:g} s")
    timer = asyncio.get_running_loop().call_later(timeout, entry.fail, error)
    entry.answer.add_done_callback(lambda _: timer.cancel())


def _measured(result: Result) -> tuple[float, float, float, float, float, int]:
    return (result.started, result.finished, result.copy_in, result.inference, result.copy_out, result.memory_bytes)

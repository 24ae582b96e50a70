"""A variant in the HTTP process: its queue, and the workers that take batches from it."""

import asyncio
import logging
import math
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.settings import Settings, for_variant
from service.workers.admission import Admission
from service.workers.death import Death
from service.workers.memory import Process
from service.workers.queue import Entry, Queue
from service.workers.status import BEST_FIRST, State, WorkerInfo
from service.workers.supervisor import Spawn, Worker
from service.workers.wire import Result

logger = logging.getLogger(__name__)


class Observer(Protocol):
    """Learns what happens to a pool (the metrics)."""

    def batch(self, variant: str, images: int, seconds: float) -> None: ...
    def restart(self, variant: str, reason: str, death: Death | None) -> None: ...
    def state(self, variant: str, state: State, workers: list[State], infos: list[WorkerInfo]) -> None: ...


class Unobserved:
    """An Observer that ignores everything."""

    def batch(self, variant: str, images: int, seconds: float) -> None: ...
    def restart(self, variant: str, reason: str, death: Death | None) -> None: ...
    def state(self, variant: str, state: State, workers: list[State], infos: list[WorkerInfo]) -> None: ...


@dataclass
class Executions:
    """The number of executed batches of one size, and the seconds of their phases."""

    batches: int = 0
    copy_in: float = 0.0
    inference: float = 0.0
    copy_out: float = 0.0

    def add(self, result: Result) -> None:
        """Count one more batch."""
        self.batches += 1
        self.copy_in += result.copy_in
        self.inference += result.inference
        self.copy_out += result.copy_out


STARTING_PAUSE = 0.05
"""Seconds. Clients that send again at once would otherwise take the processor time that the start needs."""


class Pool:
    """Accepts images for one variant and has its workers, one per device, execute them.

    `executions` maps the images in a batch to the batches of that size; `last_executed` is a time since 1970;
    `last_death` is None until a worker dies by itself.
    """

    def __init__(self, variant: str, settings: Settings, spawns: Sequence[Spawn], observer: Observer) -> None:
        self.variant = variant
        self.settings = settings
        self.max_batch_size = for_variant(settings.max_batch_size, variant)
        self.queue = Queue(self.max_batch_size)
        self._admission = Admission(self.queue, settings.max_waiting_images, settings.max_queue_wait)
        self._batch_timeout = for_variant(settings.batch_timeout, variant)
        self.executions: dict[int, Executions] = {}
        self.last_executed = 0.0
        self.last_death: Death | None = None
        self._unready_since: float | None = time.monotonic()
        self._observer = observer
        self._planned: asyncio.Handle | None = None
        self._ready_workers = 0
        self.workers = [Worker(variant, settings, spawn, self) for spawn in spawns]

    @property
    def _best(self) -> Worker:
        return min(self.workers, key=lambda worker: BEST_FIRST.index(worker.state))

    @property
    def state(self) -> State:
        """The state of the best worker."""
        return self._best.state

    @property
    def reason(self) -> str:
        """The best worker's reason for its state; empty if it is ready."""
        return self._best.reason

    @property
    def info(self) -> WorkerInfo | None:
        """The best worker's info; None if it never was ready."""
        return self._best.info

    @property
    def is_idle(self) -> bool:
        """True if no image waits and a worker could start at once."""
        return self.queue.images == 0 and any(worker.is_idle for worker in self.workers)

    @property
    def processes(self) -> list[Process]:
        """The worker processes that run now."""
        return [
            Process(worker.pid, worker.info.device_uuid if worker.info else "", worker.allocator)
            for worker in self.workers
            if worker.pid is not None
        ]

    async def supervise(self) -> None:
        """Run the workers until cancelled."""
        self.changed()
        async with asyncio.TaskGroup() as group:
            for worker in self.workers:
                group.create_task(worker.supervise())

    async def admit(self, body_bytes: float) -> None:
        """Do what `check` does, and let a request wait for STARTING_PAUSE before it is told that the variant starts."""
        try:
            self.check(body_bytes)
        except ServiceError as error:
            if error.reason.word == State.STARTING:
                await asyncio.sleep(STARTING_PAUSE)
            raise

    def check(self, body_bytes: float = 0) -> None:
        """Check that a request can be accepted now, before its body is read.

        Its images cannot be counted yet. A body that is no larger than the raw pixels of a batch stands for a small
        request. A larger body may be a small or a large request: it is refused if both would be.

        Raises:
            ServiceError: `overloaded`, or the state of a variant that is not ready.
        """
        if not self._ready_workers:
            raise self._not_ready()
        if not self.queue.images:  # most requests; a short queue takes any
            return
        if body_bytes > self.max_batch_size * math.prod(self.settings.shape):
            with suppress(ServiceError):
                self._admit(self.max_batch_size + 1)
                return
        self._admit(1)

    def _admit(self, images: int) -> None:
        """Check that a request of so many images may wait.

        Raises:
            ServiceError: `overloaded`.
        """
        lane = self.queue.lane(images)
        if lane.images:  # an empty lane takes any request
            held = sum([worker.held_images for worker in self.workers])
            self._admission.check(lane, images, held, self._ready_workers)

    def _not_ready(self) -> ServiceError:
        """Return the error that requests end in while no worker is ready."""
        reason = f": {self.reason}" if self.reason else ""
        return ServiceError(self.state, f"{self.variant} is {self.state}{reason}")

    def submit(self, pixels: NDArray[np.uint8], timeout: float) -> list[Entry]:
        """Queue the images of one request and return its entries, each with as many images as fit a batch.

        Args:
            pixels: `[n, 3, S, S] uint8`, S the settings' side.
            timeout: seconds after which the entries fail with `deadline`.

        Raises:
            ServiceError: `overloaded`, or the state of a variant that is not ready.
        """
        if not self._ready_workers:
            raise self._not_ready()
        self._admit(len(pixels))
        entries = self.queue.put(pixels)
        for entry in entries:
            entry.expire_after(timeout)
        self._plan()
        return entries

    def _plan(self) -> None:
        """Plan to dispatch after this turn of the event loop, or, if no batch is full, after the batch timeout."""
        loop, wait = asyncio.get_running_loop(), self._batch_timeout
        if wait and self.queue.images < self.max_batch_size:
            self._planned = self._planned or loop.call_later(wait, self.dispatch)
        elif wait or self._planned is None:
            self._forget_plan()
            self._planned = loop.call_soon(self.dispatch)

    def _forget_plan(self) -> None:
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None

    def dispatch(self) -> None:
        """Give every idle worker a batch, as long as images wait."""
        self._forget_plan()
        for worker in self.workers:
            if worker.is_idle and (batch := self.queue.take()):
                worker.execute(batch)

    def executed(self, result: Result, seconds: float) -> None:
        """Count an executed batch, which kept its worker from others for so many seconds."""
        images = len(result.logits)
        self._admission.measured(images, seconds)
        self.last_executed = time.time()
        self.executions.setdefault(images, Executions()).add(result)
        self._observer.batch(self.variant, images, result.finished - result.started)

    def poisoned(self, entries: list[Entry]) -> None:
        """Run each of the entries alone, so that only the culprit fails."""
        self.queue.put_back(entries)

    def restarted(self, reason: str, death: Death | None) -> None:
        """Tell the observer that a worker was lost."""
        self.last_death = death or self.last_death
        self._observer.restart(self.variant, reason, death)

    def changed(self) -> None:
        """Tell the observer every worker's state. If none is ready, fail the requests that wait, as new ones fail."""
        worker = self._best
        self._ready_workers = [worker.state for worker in self.workers].count(State.READY)
        infos = [worker.info for worker in self.workers if worker.state == State.READY and worker.info]
        self._observer.state(self.variant, worker.state, [worker.state for worker in self.workers], infos)
        self._log_readiness(worker.state)
        for info in infos:
            self._admission.warmed_up(info.full_batch_seconds)
        if worker.state != State.READY:
            self.queue.fail_all(self._not_ready())

    def _log_readiness(self, state: State) -> None:
        """Log how long the variant took to be ready, once each time."""
        if state != State.READY:
            self._unready_since = self._unready_since or time.monotonic()
        elif self._unready_since is not None:
            logger.info("%s is ready after %.1f s", self.variant, time.monotonic() - self._unready_since)
            self._unready_since = None

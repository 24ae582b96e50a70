"""A variant in the HTTP process: its queue and the workers that take batches from it."""

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.settings import Settings, for_variant
from service.workers.memory import Process
from service.workers.queue import Entry, Queue
from service.workers.supervisor import Spawn, Worker
from service.workers.wire import Result

BEST_FIRST = ("ready", "starting", "failed", "unavailable")
"""A variant is in the best state that one of its workers is in."""


class Observer(Protocol):
    """Who is told what happens (the metrics)."""

    def batch(self, variant: str, images: int, seconds: float) -> None: ...
    def restart(self, variant: str, reason: str) -> None: ...
    def state(self, variant: str, state: str, workers: list[str], cards: list[dict[str, Any]]) -> None: ...


class Unobserved:
    """Nobody is told."""

    def batch(self, variant: str, images: int, seconds: float) -> None: ...
    def restart(self, variant: str, reason: str) -> None: ...
    def state(self, variant: str, state: str, workers: list[str], cards: list[dict[str, Any]]) -> None: ...


@dataclass
class Executions:
    """How many batches of one size were executed, and the seconds that they took."""

    batches: int = 0
    copy_in: float = 0.0
    inference: float = 0.0
    copy_out: float = 0.0

    def add(self, result: Result) -> None:
        self.batches += 1
        self.copy_in += result.copy_in
        self.inference += result.inference
        self.copy_out += result.copy_out


class Pool:
    """Accepts images for one variant and has them executed, a worker per device.

    `executions` maps the size of a batch, in images, to what was executed; `last_executed` is a time since 1970.
    """

    def __init__(self, variant: str, settings: Settings, spawns: Sequence[Spawn], observer: Observer) -> None:
        self.variant = variant
        self.settings = settings
        self.queue = Queue(settings.max_waiting_images)
        self.max_batch_size = for_variant(settings.max_batch_size, variant)
        self._batch_timeout = for_variant(settings.batch_timeout, variant)
        self.executions: dict[int, Executions] = {}
        self.last_executed = 0.0
        self._observer = observer
        self._planned: asyncio.Handle | None = None
        self.workers = [Worker(variant, settings, spawn, self) for spawn in spawns]

    @property
    def _best(self) -> Worker:
        return min(self.workers, key=lambda worker: BEST_FIRST.index(worker.state))

    @property
    def state(self) -> str:
        return self._best.state

    @property
    def reason(self) -> str:
        return self._best.reason

    @property
    def card(self) -> dict[str, Any]:
        return self._best.card

    @property
    def is_idle(self) -> bool:
        """Nothing waits, and a worker could start at once."""
        return self.queue.images == 0 and any(worker.idle for worker in self.workers)

    @property
    def processes(self) -> list[Process]:
        return [
            Process(worker.pid, worker.card.get("device_uuid", ""), worker.allocator)
            for worker in self.workers
            if worker.pid is not None
        ]

    async def supervise(self) -> None:
        """Run the workers until cancelled."""
        self.changed()
        async with asyncio.TaskGroup() as group:
            for worker in self.workers:
                group.create_task(worker.supervise())

    def check(self) -> None:
        """Whether a request can be taken at all.

        Raises:
            ServiceError: `overloaded`, or the variant is not ready.
        """
        worker = self._best
        if worker.state != "ready":
            reason = f": {worker.reason}" if worker.reason else ""
            raise ServiceError(worker.state, f"{self.variant} is {worker.state}{reason}")
        waiting, most = self.queue.images, self.queue.capacity
        if waiting >= most:
            raise ServiceError("overloaded", f"{waiting} images are waiting, at most {most} may")

    def submit(self, pixels: NDArray[np.uint8], timeout: float) -> list[Entry]:
        """Queue one request's `[n, 3, 32, 32] uint8` images, split into parts that fit a batch.

        Args:
            pixels: the images.
            timeout: seconds after which the entries fail with `deadline`.

        Raises:
            ServiceError: `overloaded`, or the variant is not ready.
        """
        self.check()
        size = self.max_batch_size
        parts = [pixels] if len(pixels) <= size else [pixels[i : i + size] for i in range(0, len(pixels), size)]
        entries = self.queue.put(parts)
        for entry in entries:
            _expire(entry, timeout)
        self._plan()
        return entries

    def _plan(self) -> None:
        """Dispatch once this turn of the event loop is over, or once a batch that is not full had its time to fill."""
        loop, patience = asyncio.get_running_loop(), self._batch_timeout
        if patience and self.queue.images < self.max_batch_size:
            self._planned = self._planned or loop.call_later(patience, self.idle)
        elif patience or self._planned is None:
            self._forget_plan()
            self._planned = loop.call_soon(self.idle)

    def _forget_plan(self) -> None:
        if self._planned is not None:
            self._planned.cancel()
            self._planned = None

    def idle(self) -> None:
        """Give every idle worker a batch, as long as images wait."""
        self._forget_plan()
        for worker in self.workers:
            if worker.idle and (batch := self.queue.take(self.max_batch_size)):
                worker.execute(batch)

    def executed(self, result: Result) -> None:
        images = len(result.logits)
        self.last_executed = time.time()
        self.executions.setdefault(images, Executions()).add(result)
        self._observer.batch(self.variant, images, result.finished - result.started)

    def poisoned(self, entries: list[Entry]) -> None:
        """Run each alone, so that only the culprit fails."""
        self.queue.put_back(entries)

    def restarted(self, reason: str) -> None:
        self._observer.restart(self.variant, reason)

    def changed(self) -> None:
        worker = self._best
        cards = [worker.card for worker in self.workers if worker.state == "ready"]
        self._observer.state(self.variant, worker.state, [worker.state for worker in self.workers], cards)
        if worker.state in ("failed", "unavailable"):
            self.queue.fail_all(ServiceError(worker.state, f"{self.variant} is {worker.state}: {worker.reason}"))


def _expire(entry: Entry, timeout: float) -> None:
    """Fail the entry unless it is answered within `timeout` seconds."""
    error = ServiceError("deadline", f"no answer within {timeout:g} s")
    timer = asyncio.get_running_loop().call_later(timeout, entry.fail, error)
    entry.answer.add_done_callback(lambda _: timer.cancel())

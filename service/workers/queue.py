"""The bounded queue of one variant. Its entries wait until a worker takes them as a batch."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.workers.status import WorkerInfo
from service.workers.wire import Result


@dataclass(frozen=True, slots=True)
class Answer:
    """An entry's part of an executed batch."""

    result: Result
    """The logits of the entry's images, and the measurements of the whole batch."""
    batch_size: int
    """Images in the whole batch."""
    info: WorkerInfo
    """The worker that ran it."""


class Entry:
    """Images of one request on their way through one batch.

    `pixels` is `[n, 3, S, S] uint8`. `answer` ends as an Answer or a ServiceError. If that happens before a worker
    takes the entry (deadline, client gone), its images are never computed. `alone` entries share no batch.
    """

    __slots__ = ("alone", "answer", "enqueued", "pixels", "queue")

    def __init__(self, pixels: NDArray[np.uint8], queue: "Queue") -> None:
        self.pixels = pixels
        self.queue: Queue | None = queue
        self.alone = False
        self.enqueued = time.perf_counter()
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def fail(self, error: ServiceError) -> None:
        """End the entry with the error unless it is answered, and release its images if it still waits."""
        if not self.answer.done():
            self.answer.set_exception(error)
        if self.queue is not None:
            self.queue.forget(self)
            self.pixels = self.pixels[:0].copy()  # the entry itself stays in the queue until `take` drops it


class Queue:
    """Entries in the order of their arrival. At most `capacity` images wait, or one request that is larger."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.images = 0
        self._entries: deque[Entry] = deque()

    def put(self, parts: list[NDArray[np.uint8]]) -> list[Entry]:
        """Queue all parts of one request, or none, and return their entries.

        Raises:
            ServiceError: `overloaded`.
        """
        count = sum(map(len, parts))
        if self.images and self.images + count > self.capacity:
            raise ServiceError("overloaded", f"{self.images} images are waiting, at most {self.capacity} may")
        entries = [Entry(part, self) for part in parts]
        self._entries.extend(entries)
        self.images += count
        return entries

    def put_back(self, entries: list[Entry]) -> None:
        """Put unanswered entries back to the head of the queue, each to be executed alone."""
        for entry in reversed(entries):
            if not entry.answer.done():
                entry.queue, entry.alone = self, True
                self._entries.appendleft(entry)
                self.images += len(entry.pixels)

    def forget(self, entry: Entry) -> None:
        """Stop counting an entry that no longer waits. `take` drops it."""
        entry.queue = None
        self.images -= len(entry.pixels)

    def take(self, limit: int) -> list[Entry]:
        """Remove and return the next batch: at most `limit` images, or one larger entry; empty if nothing waits."""
        batch: list[Entry] = []
        room = limit
        while self._entries:
            entry = self._entries[0]
            waiting = entry.queue is not None
            if waiting and batch and (entry.alone or batch[0].alone or len(entry.pixels) > room):
                break
            self._entries.popleft()
            if waiting:
                self.forget(entry)
                room -= len(entry.pixels)
                batch.append(entry)
        return batch

    def fail_all(self, error: ServiceError) -> None:
        """End every waiting entry with the error."""
        for entry in self._entries:
            entry.fail(error)
        self._entries.clear()

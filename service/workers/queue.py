"""The bounded queue of one variant: entries wait here until a worker takes them as a batch."""

import asyncio
import time
from collections import deque
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.workers.wire import Result


@dataclass(frozen=True, slots=True)
class Answer:
    """An entry's part of an executed batch: its Result, the images in the batch, the card of the engine that ran it."""

    result: Result
    batch_size: int
    card: dict[str, Any]


class Entry:
    """Images of one request on their way through one executed batch.

    `pixels` is `[n, 3, S, S] uint8`. `answer` ends as an Answer or a ServiceError. An entry that was answered
    (deadline, client gone) before a worker took it is never computed.
    """

    __slots__ = ("alone", "answer", "enqueued", "pixels", "queue")

    def __init__(self, pixels: NDArray[np.uint8], queue: "Queue") -> None:
        self.pixels = pixels
        self.queue: Queue | None = queue
        self.alone = False
        self.enqueued = time.perf_counter()
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()

    def fail(self, error: ServiceError) -> None:
        if not self.answer.done():
            self.answer.set_exception(error)
        if self.queue is not None:
            self.queue.forget(self)
            self.pixels = self.pixels[:0].copy()  # the entry itself stays until `take` gets to it


class Queue:
    """First come, first served; at most `capacity` images wait."""

    def __init__(self, capacity: int) -> None:
        self.capacity = capacity
        self.images = 0
        self._entries: deque[Entry] = deque()

    def put(self, parts: list[NDArray[np.uint8]]) -> list[Entry]:
        """Queue the parts of one request together, or none of them.

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
        """Return entries to the head of the queue, each to be executed alone."""
        for entry in reversed(entries):
            if not entry.answer.done():
                entry.queue, entry.alone = self, True
                self._entries.appendleft(entry)
                self.images += len(entry.pixels)

    def forget(self, entry: Entry) -> None:
        """Stop counting an entry that no longer waits; `take` drops it."""
        entry.queue = None
        self.images -= len(entry.pixels)

    def take(self, limit: int) -> list[Entry]:
        """The next batch, at most `limit` images (a larger entry comes alone); empty when nothing waits."""
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
        for entry in self._entries:
            entry.fail(error)
        self._entries.clear()

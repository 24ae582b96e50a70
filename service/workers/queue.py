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
    takes the entry (deadline, client gone), its images are never computed. `lane` is None once the entry waits no more.
    """

    __slots__ = ("_timer", "answer", "enqueued", "lane", "pixels")

    def __init__(self, pixels: NDArray[np.uint8], lane: "Lane") -> None:
        self.pixels = pixels
        self.lane: Lane | None = lane
        self.enqueued = time.perf_counter()
        self.answer: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._timer: asyncio.TimerHandle | None = None

    def expire_after(self, seconds: float) -> None:
        """Fail the entry with `deadline` unless it ends within so many seconds."""
        self._timer = asyncio.get_running_loop().call_later(seconds, self._expire, seconds)

    def _expire(self, seconds: float) -> None:
        self.fail(ServiceError("deadline", f"no answer within {seconds:g} s"))

    def succeed(self, answer: Answer) -> None:
        """End the entry with its answer unless it has ended."""
        self._stop_timer()
        if not self.answer.done():
            self.answer.set_result(answer)

    def fail(self, error: ServiceError) -> None:
        """End the entry with the error unless it has ended, and release its images if it still waits."""
        self._stop_timer()
        if not self.answer.done():
            self.answer.set_exception(error)
        if self.lane is not None:
            self.lane.forget(self)
            self.pixels = self.pixels[:0].copy()  # the entry itself stays in its lane until a batch is taken

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class Lane:
    """Entries in the order of their arrival. `images` counts the images of those that wait."""

    def __init__(self) -> None:
        self.images = 0
        self._entries: deque[Entry] = deque()

    def put(self, parts: list[NDArray[np.uint8]]) -> list[Entry]:
        """Queue the parts and return their entries."""
        entries = [Entry(part, self) for part in parts]
        self._entries.extend(entries)
        self.images += sum(map(len, parts))
        return entries

    def put_back(self, entries: list[Entry]) -> None:
        """Queue entries that were taken from a lane before. Those that are answered stay away."""
        for entry in entries:
            if not entry.answer.done():
                entry.lane = self
                self._entries.append(entry)
                self.images += len(entry.pixels)

    def forget(self, entry: Entry) -> None:
        """Stop counting an entry that no longer waits. The next batch drops it."""
        entry.lane = None
        self.images -= len(entry.pixels)

    def take(self, limit: int, most: int | None = None) -> list[Entry]:
        """Remove and return entries from the head, in all at most `limit` images; `most` bounds their number, too."""
        batch: list[Entry] = []
        while self._entries and len(batch) != most:
            entry = self._entries[0]
            if entry.lane is not None:
                if len(entry.pixels) > limit:
                    break
                self.forget(entry)
                limit -= len(entry.pixels)
                batch.append(entry)
            self._entries.popleft()
        return batch

    def fail_all(self, error: ServiceError) -> None:
        """End every waiting entry with the error."""
        for entry in self._entries:
            entry.fail(error)
        self._entries.clear()


class Queue:
    """Requests that wait, in two lanes that take turns: those of at most one batch, and larger ones.

    While both lanes wait, the one that was served fewer images goes next, so each gets half of the images. The head of
    the small lane waits for the batches in hand and for at most one batch of the large lane, however much waits there.
    """

    def __init__(self, batch_size: int) -> None:
        self.batch_size = batch_size
        self.small = Lane()
        self.large = Lane()
        self._alone = Lane()
        self._lead = 0
        """Images that the small lane was served more than the large one, since both wait."""

    @property
    def images(self) -> int:
        """The number of images that wait."""
        return self.small.images + self.large.images + self._alone.images

    def lane(self, count: int) -> Lane:
        """Return the lane of a request of `count` images."""
        return self.small if count <= self.batch_size else self.large

    def ahead(self, lane: Lane) -> int:
        """Return the number of images that run before those of a request that joins the lane now."""
        other = self.large if lane is self.small else self.small
        return self._alone.images + lane.images + min(lane.images, other.images)

    def put(self, pixels: NDArray[np.uint8]) -> list[Entry]:
        """Queue `[n, 3, S, S] uint8` images of one request and return their entries, none larger than a batch."""
        size = self.batch_size
        parts = [pixels] if len(pixels) <= size else [pixels[i : i + size] for i in range(0, len(pixels), size)]
        return self.lane(len(pixels)).put(parts)

    def put_back(self, entries: list[Entry]) -> None:
        """Put back unanswered entries of a batch. Each runs alone, before all others."""
        self._alone.put_back(entries)

    def take(self) -> list[Entry]:
        """Remove and return the next batch; empty if nothing waits."""
        if suspect := self._alone.take(self.batch_size, most=1):
            return suspect
        if not (self.small.images and self.large.images):
            self._lead = 0
        first, second = (self.small, self.large) if self._lead <= 0 else (self.large, self.small)
        small, large = self.small.images, self.large.images
        batch = first.take(self.batch_size)
        batch += second.take(self.batch_size - sum(len(entry.pixels) for entry in batch))
        if small and large:
            self._lead += (small - self.small.images) - (large - self.large.images)
        return batch

    def fail_all(self, error: ServiceError) -> None:
        """End every waiting entry with the error."""
        for lane in (self._alone, self.small, self.large):
            lane.fail_all(error)

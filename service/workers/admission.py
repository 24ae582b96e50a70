"""The decision whether a request may join a variant's queue, by the time that it would wait there."""

import math

from service.errors import ServiceError
from service.workers.queue import Lane, Queue

WEIGHT = 0.2
"""Weight of the newest full batch in the mean: the last ten batches make nine tenths of it."""


class Admission:
    """The limits of a queue, and the measured rate of the workers that empty it.

    Only batches that are at least half full are measured. Those of a deep queue are, and only there the wait matters;
    a small batch takes more time per image. Of two batches in a row from a deep lane, one is at least half full.
    """

    def __init__(self, queue: Queue, most_images: int, most_seconds: float) -> None:
        self._queue = queue
        self._most_images = most_images
        self._most_seconds = most_seconds
        self._image_seconds: float | None = None

    def warmed_up(self, seconds: float) -> None:
        """Learn the time of a full batch at a worker's start. It counts until a batch of clients is measured."""
        if self._image_seconds is None:
            self.measured(self._queue.batch_size, seconds)

    def measured(self, images: int, seconds: float) -> None:
        """Learn that a batch of so many images kept a worker from others for so many seconds."""
        if 2 * images < self._queue.batch_size:
            return
        now = seconds / images
        before = self._image_seconds
        self._image_seconds = now if before is None else before + WEIGHT * (now - before)

    def expected_wait(self, lane: Lane, held: int, workers: int) -> float:
        """Return the seconds until a request that joins the lane now is taken by a worker.

        Args:
            lane: of the request.
            held: images in the batches that the workers execute now.
            workers: how many of them are ready.
        """
        return (held + self._queue.ahead(lane)) * (self._image_seconds or 0.0) / max(1, workers)

    def check(self, lane: Lane, images: int, held: int, workers: int) -> None:
        """Check that a request of so many images may join the lane, see `expected_wait`.

        An empty lane takes any request. One that holds less than a batch takes what makes the batch full: the workers
        must not run out of images, however slow they are.

        Raises:
            ServiceError: `overloaded`, whose Retry-After is the time in which the queue of now is served.
        """
        waiting = lane.images
        if not waiting or waiting + images <= min(self._queue.batch_size, self._most_images):
            return
        wait = self.expected_wait(lane, held, workers)
        retry_after = max(1, math.ceil(wait))
        if waiting + images > self._most_images:
            detail = f"{waiting} images are waiting, at most {self._most_images} may"
            raise ServiceError("overloaded", detail, retry_after)
        if wait > self._most_seconds and waiting + images > self._queue.batch_size:
            detail = f"the expected wait is {wait:.1f} s, at most {self._most_seconds:g} s are allowed"
            raise ServiceError("overloaded", detail, retry_after)

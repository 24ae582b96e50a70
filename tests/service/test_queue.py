"""Batches are formed in order and within their limit, without entries that ended meanwhile."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import numpy as np
import pytest

from service.errors import ServiceError
from service.workers.queue import Queue


def images(count: int) -> list[Any]:
    return [np.zeros((count, 3, 32, 32), np.uint8)]


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def test_a_batch_is_counted_in_images() -> None:
    """Requests of 3, 4 and 2 images with a limit of 8 make batches of 7 and 2."""

    async def scenario() -> None:
        queue = Queue(100)
        for count in (3, 4, 2):
            queue.put(images(count))
        assert [sum(len(entry.pixels) for entry in queue.take(8)) for _ in range(2)] == [7, 2]
        assert queue.images == 0

    run(scenario())


def test_a_full_queue_takes_all_of_a_request_or_nothing() -> None:
    """A request past the capacity is `overloaded`; the entries that wait stay."""

    async def scenario() -> None:
        queue = Queue(5)
        queue.put(images(4))
        with pytest.raises(ServiceError, match="4 images are waiting"):
            queue.put(images(1) + images(1))
        assert queue.images == 4

    run(scenario())


def test_an_answered_entry_is_not_taken() -> None:
    """Deadline and disconnect drop an entry before it is computed, and its images no longer count."""

    async def scenario() -> None:
        queue = Queue(10)
        (gone,), (stays,) = queue.put(images(2)), queue.put(images(1))
        gone.fail(ServiceError("deadline", "late"))
        assert queue.images == 1
        assert queue.take(8) == [stays]
        assert isinstance(gone.answer.exception(), ServiceError)

    run(scenario())


def test_a_failed_entry_releases_its_images() -> None:
    """The queue has room for others at once, so the entry releases its memory, too."""

    async def scenario() -> None:
        queue = Queue(8)
        (entry,) = queue.put(images(4))
        entry.fail(ServiceError("deadline", "late"))
        assert entry.pixels.base is None
        assert len(entry.pixels) == 0
        assert queue.images == 0
        entry.answer.exception()

    run(scenario())


def test_entries_put_back_are_executed_alone_and_first() -> None:
    """After an engine error each entry of the batch gets a batch of its own, before later requests."""

    async def scenario() -> None:
        queue = Queue(10)
        first, second = queue.put(images(1) + images(1))
        queue.take(8)
        (later,) = queue.put(images(1))
        queue.put_back([first, second])
        assert [queue.take(8) for _ in range(3)] == [[first], [second], [later]]

    run(scenario())


def test_an_empty_queue_gives_no_batch() -> None:
    """`take` does not wait for images."""

    async def scenario() -> None:
        assert Queue(10).take(8) == []

    run(scenario())

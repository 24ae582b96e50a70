"""Batches are formed in order and within their limit, without entries that ended meanwhile. Two lanes take turns."""

import asyncio
import gc
import time
import weakref
from collections.abc import Coroutine
from contextlib import suppress
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request

from service.deadline import Deadline
from service.errors import ServiceError
from service.prediction import Prediction
from service.workers.pool import Pool
from service.workers.queue import Entry, Queue
from tests.service.processes import eventually


def images(count: int) -> NDArray[np.uint8]:
    return np.zeros((count, 3, 32, 32), np.uint8)


def sizes(batch: list[Entry]) -> list[int]:
    return [len(entry.pixels) for entry in batch]


def run(coroutine: Coroutine[Any, Any, None]) -> None:
    asyncio.run(coroutine)


def test_a_batch_is_counted_in_images() -> None:
    """Requests of 3, 4 and 2 images with a limit of 8 make batches of 7 and 2."""

    async def scenario() -> None:
        queue = Queue(8)
        for count in (3, 4, 2):
            queue.put(images(count))
        assert [sizes(queue.take()) for _ in range(2)] == [[3, 4], [2]]
        assert queue.images == 0

    run(scenario())


def test_a_large_request_is_cut_into_batches() -> None:
    """20 images with a limit of 8 are three entries, each of at most a batch."""

    async def scenario() -> None:
        queue = Queue(8)
        assert sizes(queue.put(images(20))) == [8, 8, 4]
        assert [sizes(queue.take()) for _ in range(3)] == [[8], [8], [4]]

    run(scenario())


def test_an_answered_entry_is_not_taken() -> None:
    """Deadline and disconnect drop an entry before it is computed, and its images no longer count."""

    async def scenario() -> None:
        queue = Queue(8)
        (gone,), (stays,) = queue.put(images(2)), queue.put(images(1))
        gone.fail(ServiceError("deadline", "late"))
        assert queue.images == 1
        assert queue.take() == [stays]
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


def test_a_request_that_failed_in_the_queue_is_let_go_at_once() -> None:
    """The error of a request, whose traceback holds its images, does not wait for the garbage collector."""

    async def scenario() -> None:
        queue = Queue(8)
        pool = cast(Pool, SimpleNamespace(submit=lambda pixels, _: queue.put(pixels)))
        errors: list[weakref.ref[ServiceError]] = []

        def fail() -> None:
            late = ServiceError("deadline", "late")
            errors.append(weakref.ref(late))
            queue.take()[0].fail(late)

        asyncio.get_running_loop().call_soon(fail)
        gc.disable()
        with suppress(ServiceError):
            prediction = Prediction(None, Request({"type": "http"}), "int8", "an id", 0.0)
            await prediction.execute(pool, images(4), Deadline(time.perf_counter(), 5))
        try:
            await eventually(lambda: errors[0]() is None, 5)  # the loop holds the last future until its step ends
        finally:
            gc.enable()

    run(scenario())


def test_entries_put_back_are_executed_alone_and_first() -> None:
    """After an engine error each entry of the batch gets a batch of its own, before later requests."""

    async def scenario() -> None:
        queue = Queue(8)
        (first,), (second,) = queue.put(images(1)), queue.put(images(1))
        queue.take()
        (later,) = queue.put(images(1))
        queue.put_back([first, second])
        assert queue.images == 3
        assert [queue.take() for _ in range(3)] == [[first], [second], [later]]

    run(scenario())


def test_an_empty_queue_gives_no_batch() -> None:
    """`take` does not wait for images."""

    async def scenario() -> None:
        assert Queue(8).take() == []

    run(scenario())


def test_a_small_request_waits_for_one_batch_of_large_ones_at_most() -> None:
    """However many large requests wait, and whatever was served before, the second batch at the latest has it."""

    async def scenario() -> None:
        queue = Queue(8)
        for _ in range(100):
            queue.put(images(64))
        for served_before in range(40):
            (small,) = queue.put(images(1 + served_before % 8))
            assert small in queue.take() + queue.take()
            assert queue.large.images

    run(scenario())


def test_a_large_request_waits_for_one_batch_of_small_ones_at_most() -> None:
    """The same holds the other way round: small requests that never end do not starve a large one."""

    async def scenario() -> None:
        queue = Queue(8)
        for _ in range(400):
            queue.put(images(3))
        for _ in range(20):
            first, _ = queue.put(images(9))
            assert first in queue.take() + queue.take()
            while queue.large.images:
                queue.take()
            assert queue.small.images

    run(scenario())


def test_both_lanes_get_half_of_the_images() -> None:
    """While both wait, neither is ahead of the other by more than a batch, whatever the sizes of the requests."""

    async def scenario() -> None:
        queue = Queue(8)
        for _ in range(100):
            queue.put(images(5))
            queue.put(images(12))
        small = large = 0
        while queue.small.images and queue.large.images:
            before = queue.small.images, queue.large.images
            queue.take()
            small += before[0] - queue.small.images
            large += before[1] - queue.large.images
            assert abs(small - large) <= 8

    run(scenario())


def test_a_lane_that_was_empty_has_no_credit() -> None:
    """Large requests that ran while nothing else waited are not held against the next ones."""

    async def scenario() -> None:
        queue = Queue(8)
        queue.put(images(800))
        for _ in range(50):
            queue.take()
        for _ in range(100):
            queue.put(images(8))
        taken = [sizes(queue.take()) for _ in range(4)]
        assert taken == [[8]] * 4
        assert queue.small.images == 800 - 2 * 8
        assert queue.large.images == 400 - 2 * 8

    run(scenario())

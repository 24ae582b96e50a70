"""A request may wait if its turn is expected soon enough. The measured rate of full batches says so."""

import asyncio
from collections.abc import Callable

import numpy as np
import pytest
from numpy.typing import NDArray

from service.errors import ServiceError
from service.workers.admission import Admission
from service.workers.queue import Queue

BATCH = 10
PLENTY = 10_000


def images(count: int) -> NDArray[np.uint8]:
    return np.zeros((count, 3, 32, 32), np.uint8)


def play(act: Callable[[Queue, Admission], None], most_images: int = PLENTY, most_seconds: float = 1.0) -> None:
    """Run the act with a queue and its admission, in an event loop."""

    async def scenario() -> None:
        queue = Queue(BATCH)
        act(queue, Admission(queue, most_images, most_seconds))

    asyncio.run(scenario())


def admitted(queue: Queue, admission: Admission, count: int, held: int = BATCH) -> int:
    """Return the number of requests of `count` images that one worker's queue takes until it refuses."""
    for number in range(PLENTY):
        try:
            admission.check(queue.lane(count), count, held, workers=1)
        except ServiceError:
            return number
        queue.put(images(count))
    raise AssertionError("it never refuses")


@pytest.mark.parametrize(("seconds", "expected"), [(0.1, 91), (0.2, 41), (0.05, 191)])
def test_the_queue_is_as_long_as_the_workers_are_fast(seconds: float, expected: int) -> None:
    """With a batch of 10 in hand, single images are taken while the wait is at most 1 s."""

    def act(queue: Queue, admission: Admission) -> None:
        admission.warmed_up(seconds)
        assert admitted(queue, admission, 1) == expected

    play(act)


def test_the_measured_rate_replaces_that_of_the_warm_up() -> None:
    """Batches of clients count as soon as they are measured; the mean of ten is nine tenths of the way there."""

    def act(queue: Queue, admission: Admission) -> None:
        admission.warmed_up(0.1)
        queue.put(images(BATCH))
        for _ in range(10):
            admission.measured(BATCH, 0.2)
        wait = admission.expected_wait(queue.small, 0, 1)
        assert wait == pytest.approx(0.2 - 0.1 * 0.8**10)
        admission.warmed_up(50)
        assert admission.expected_wait(queue.small, 0, 1) == wait

    play(act)


def test_batches_less_than_half_full_are_not_measured() -> None:
    """A single image takes longer than its part of a full batch, and deep queues have full batches."""

    def act(queue: Queue, admission: Admission) -> None:
        queue.put(images(BATCH))
        admission.warmed_up(0.1)
        admission.measured(4, 0.1)
        assert admission.expected_wait(queue.small, 0, 1) == pytest.approx(0.1)
        admission.measured(5, 0.1)
        assert admission.expected_wait(queue.small, 0, 1) == pytest.approx(0.12)

    play(act)


def test_two_workers_halve_the_wait() -> None:
    """The images in hand and in the queue are shared among the ready workers."""

    def act(queue: Queue, admission: Admission) -> None:
        admission.warmed_up(0.1)
        queue.put(images(BATCH))
        assert admission.expected_wait(queue.small, 2 * BATCH, 2) == pytest.approx(0.15)

    play(act)


def test_an_empty_queue_takes_any_request() -> None:
    """A request that alone takes longer than the bound, or has more images than may wait, is not refused for that."""

    def act(queue: Queue, admission: Admission) -> None:
        admission.warmed_up(5.0)
        for count in (1, BATCH, 100):
            admission.check(queue.lane(count), count, BATCH, 1)

    play(act, most_images=50)


def test_slow_workers_do_not_run_out_of_images() -> None:
    """Though a single batch takes longer than the bound, one waits while another runs."""

    def act(queue: Queue, admission: Admission) -> None:
        admission.warmed_up(5.0)
        assert admitted(queue, admission, 1) == BATCH

    play(act)


def test_the_number_of_waiting_images_is_bounded_too() -> None:
    """Fast workers could empty more, but their queue must not hold it."""

    def act(queue: Queue, admission: Admission) -> None:
        admission.warmed_up(0.001)
        assert admitted(queue, admission, 4) == 12
        with pytest.raises(ServiceError, match="48 images are waiting, at most 50 may"):
            admission.check(queue.small, 4, 0, 1)

    play(act, most_images=50)


def test_large_requests_do_not_fill_the_queue_of_small_ones() -> None:
    """Refused large requests leave a small one its place, and half of the rate, which its expected wait counts."""

    def act(queue: Queue, admission: Admission) -> None:
        admission.warmed_up(0.1)
        assert admitted(queue, admission, 50) == 2
        assert admission.expected_wait(queue.small, BATCH, 1) == pytest.approx(0.1)
        assert admitted(queue, admission, 1) == 46

    play(act)


@pytest.mark.parametrize(("bound", "retry_after"), [(1.0, 2), (0.5, 1), (6.0, 7)])
def test_retry_after_is_the_time_in_which_the_queue_is_served(bound: float, retry_after: int) -> None:
    """Whole seconds, rounded up, at least one."""

    def act(queue: Queue, admission: Admission) -> None:
        admission.warmed_up(0.1)
        admitted(queue, admission, 1)
        with pytest.raises(ServiceError, match=rf"expected wait is .* s, at most {bound:g} s") as refused:
            admission.check(queue.small, 1, BATCH, 1)
        assert (refused.value.reason.word, refused.value.retry_after) == ("overloaded", retry_after)

    play(act, most_seconds=bound)


def test_an_emptied_queue_takes_requests_at_once() -> None:
    """The decision follows the queue of now: nothing has to run down first."""

    def act(queue: Queue, admission: Admission) -> None:
        admission.warmed_up(0.1)
        taken = admitted(queue, admission, 1)
        while queue.take():
            pass
        assert admitted(queue, admission, 1) == taken

    play(act)

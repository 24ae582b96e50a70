"""Times that are computed from others: the critical path of a split request, and the statistics of a model."""

import numpy as np
import pytest

from service.metrics import PHASES, Metrics
from service.phases import Phases
from service.settings import Settings
from service.v2.statistics import statistics
from service.workers.pool import Pool, Unobserved
from service.workers.wire import Result, critical_path
from tests.service import fakes


def batch(started: float, finished: float) -> Result:
    """Return a batch of which all the time was forward pass."""
    return Result(np.zeros((1, 10), np.float32), started, finished, 0, finished - started, 0, 0)


@pytest.mark.parametrize(
    ("batches", "expected"),
    [
        ([(0, 1)], [(0, 1)]),
        ([(0, 1), (1, 2), (3, 4)], [(0, 1), (1, 2), (3, 4)]),
        ([(0, 1), (0, 2), (1, 3), (2, 4)], [(0, 2), (2, 4)]),
        ([(0, 4), (0, 1), (1, 2)], [(0, 4)]),
        ([(1, 2), (0, 1)], [(0, 1), (1, 2)]),
    ],
    ids=["one", "one worker", "two workers", "a slow one", "the second part first"],
)
def test_the_critical_path_is_what_the_end_waited_for(
    batches: list[tuple[float, float]], expected: list[tuple[float, float]]
) -> None:
    """Its batches do not overlap, so their times fit into the request's."""
    path = critical_path([batch(*times) for times in batches])
    assert [(result.started, result.finished) for result in path] == expected


def test_phases_of_an_answered_prediction_add_up_to_its_duration() -> None:
    """`other` is the rest; it is 0 where the clocks of two processes disagree by more than the rest."""
    phases = Phases(0.125, 0.25, 0.25, 0.0, 0.5, 0.0, 0.125)
    assert phases.ended(encode=0.25, duration=2.0) == (*phases[:-2], 0.25, 0.5)
    assert phases.ended(encode=0.25, duration=1.0).other == 0


def test_only_phases_that_were_reached_are_told() -> None:
    """In the order in which they happen; a phase that took no time was reached, too."""
    assert list(Phases(receive=0.1, decode=0.0).reached().items()) == [("receive", 0.1), ("decode", 0.0)]
    assert tuple(Phases(*range(len(PHASES))).reached()) == PHASES


def test_statistics_separate_failed_time_from_answered_time() -> None:
    """A success is what the whole duration has beyond the failures, whatever its phases add up to."""
    metrics = Metrics(["int8"])
    for outcome, seconds in (("ok", 1.0), ("deadline", 0.25), ("not_an_image", 0.5)):
        metrics.started("int8")
        metrics.ended("int8", outcome, seconds)
    metrics.answered("int8", fakes.worker_info(), 1, dict.fromkeys(PHASES, 0.125), 1000)
    stats = statistics(Pool("int8", Settings(), [], Unobserved()), metrics, "resnet18-int8", "1").inference_stats
    assert (stats.success.count, stats.success.ns) == (1, 1_000_000_000)
    assert (stats.fail.count, stats.fail.ns) == (2, 750_000_000)

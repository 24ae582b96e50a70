"""Times that are made of others: the phases of a split request, and what of a variant's time was spent on failures."""

import numpy as np
import pytest

from service.metrics import PHASES, Metrics
from service.routes.predict import in_turn
from service.settings import Settings
from service.v2.statistics import statistics
from service.workers.pool import Pool, Unobserved
from service.workers.wire import Result

CARD = {"device": "cpu", "memory_kind": "activation_peak"}


def part(started: float, finished: float) -> Result:
    """A batch that was forward pass from its beginning to its end."""
    return Result(np.zeros((1, 10), np.float32), started, finished, 0, finished - started, 0, 0)


@pytest.mark.parametrize(
    ("parts", "expected"),
    [
        ([(0, 1)], [(0, 1)]),
        ([(0, 1), (1, 2), (3, 4)], [(0, 1), (1, 2), (3, 4)]),
        ([(0, 1), (0, 2), (1, 3), (2, 4)], [(0, 2), (2, 4)]),
        ([(0, 4), (0, 1), (1, 2)], [(0, 4)]),
        ([(1, 2), (0, 1)], [(0, 1), (1, 2)]),
    ],
    ids=["one", "one worker", "two workers", "a slow one", "the second part first"],
)
def test_parts_that_others_ran_meanwhile_take_no_time(
    parts: list[tuple[float, float]], expected: list[tuple[float, float]]
) -> None:
    """What is left lies one after the other, and so fits into the time of the request."""
    found = [(result.started, result.finished) for result in in_turn([part(*times) for times in parts])]
    assert found == expected


def test_statistics_tell_failed_time_from_what_failed() -> None:
    """Whatever the phases of answered requests add up to."""
    metrics = Metrics(["int8"])
    for outcome, seconds in (("ok", 1.0), ("deadline", 0.25), ("not_an_image", 0.5)):
        metrics.started("int8")
        metrics.ended("int8", outcome, seconds)
    metrics.answered("int8", CARD, 1, dict.fromkeys(PHASES, 0.125), 1000)
    stats = statistics(Pool("int8", Settings(), [], Unobserved()), metrics, "resnet18-int8", "1").inference_stats
    assert (stats.success.count, stats.success.ns) == (1, 1_000_000_000)
    assert (stats.fail.count, stats.fail.ns) == (2, 750_000_000)

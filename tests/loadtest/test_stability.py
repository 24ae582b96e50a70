"""The stability of rounds."""

import numpy as np

from loadtest.analysis.stability import drift, saturated
from loadtest.plan import Workload
from loadtest.records import Played
from tests.loadtest import builders
from tests.loadtest.builders import FP32, request


def played(latency: float, requests: int, workload: Workload, finished: float = 1.0) -> Played:
    """Return a round of one second with evenly spaced requests, of which the share `finished` ends in time."""
    starts = [float(start) for start in np.linspace(0, 0.9, requests)]
    records = [request(s, latency if i < finished * requests else 9.0, i) for i, s in enumerate(starts)]
    return builders.played(FP32, records, workload)


CLOSED, OPEN = Workload(concurrency=1), Workload(rate=50)


def test_equal_rounds_are_stable() -> None:
    """Six equal rounds have no drift."""
    assert drift([played(0.01, 50, CLOSED)] * 6, 0.1) is None


def test_a_change_of_throughput_is_not_stable() -> None:
    """The last third answers a fifth fewer requests."""
    rounds = [played(0.01, 50, CLOSED)] * 4 + [played(0.01, 40, CLOSED)] * 2
    assert "throughput moved by 14%" in (drift(rounds, 0.1) or "")


def test_a_change_of_latency_at_equal_throughput_is_not_stable() -> None:
    """An open workload hides a slower server from throughput, not from latency."""
    rounds = [played(0.01, 50, OPEN)] * 4 + [played(0.02, 50, OPEN)] * 2
    assert "p95 moved" in (drift(rounds, 0.1) or "")


def test_two_rounds_cannot_show_that_they_are_unstable() -> None:
    """Two rounds have no thirds to compare."""
    assert drift([played(0.01, 50, CLOSED), played(0.01, 10, CLOSED)], 0.1) is None


def test_an_open_workload_that_is_not_answered_in_time_is_saturated() -> None:
    """Nine of ten answers in time are too few; a closed workload is never saturated."""
    assert saturated([played(0.01, 50, OPEN, finished=0.9)])
    assert not saturated([played(0.01, 50, OPEN)])
    assert not saturated([played(0.01, 50, CLOSED, finished=0.9)])

"""When rounds count as stable."""

import math

import numpy as np

from loadtest.analysis.stability import drift, saturated
from loadtest.client.scrape import Scrape
from loadtest.plan import Arm, Round, Workload
from loadtest.records import Played, Request

ARM = Arm("fp32", "http://a", "fp32", {})


def played(latency: float, requests: int, workload: Workload, finished: float = 1.0) -> Played:
    """A round of a second with evenly spaced requests, a share of which ends in time."""
    starts = np.linspace(0, 0.9, requests)
    nan = math.nan
    records = [
        Request(i, s, s, s + (latency if i < finished * requests else 9), 200, "", (1,), nan, nan, nan, nan)
        for i, s in enumerate(starts)
    ]
    return Played(ARM, Round((ARM,), workload, 0, 0.0, 1.0, 0), 0.0, 1.0, records, Scrape({}), Scrape({}), 0.1)


CLOSED, OPEN = Workload(concurrency=1), Workload(rate=50)


def test_equal_rounds_are_stable() -> None:
    """Nothing moved."""
    assert drift([played(0.01, 50, CLOSED)] * 6, 0.1) is None


def test_a_change_of_throughput_is_not_stable() -> None:
    """The last third is a fifth slower."""
    rounds = [played(0.01, 50, CLOSED)] * 4 + [played(0.01, 40, CLOSED)] * 2
    assert "throughput moved by 14%" in (drift(rounds, 0.1) or "")


def test_a_change_of_latency_at_equal_throughput_is_not_stable() -> None:
    """An open workload hides a slower server from throughput, not from latency."""
    rounds = [played(0.01, 50, OPEN)] * 4 + [played(0.02, 50, OPEN)] * 2
    assert "p95 moved" in (drift(rounds, 0.1) or "")


def test_two_rounds_cannot_show_that_they_are_unstable() -> None:
    """There are no thirds of them."""
    assert drift([played(0.01, 50, CLOSED), played(0.01, 10, CLOSED)], 0.1) is None


def test_an_open_workload_that_is_not_answered_in_time_is_saturated() -> None:
    """Nine of ten answers are not enough; a closed workload never is."""
    assert saturated([played(0.01, 50, OPEN, finished=0.9)])
    assert not saturated([played(0.01, 50, OPEN)])
    assert not saturated([played(0.01, 50, CLOSED, finished=0.9)])

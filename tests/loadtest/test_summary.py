"""The numbers of a cell, computed from its requests and the service's metrics."""

import pytest

from loadtest.analysis.summary import summarise
from loadtest.phases import PHASES
from loadtest.records import Played
from loadtest.report.cells import Cell
from loadtest.report.groups import parts
from service import metrics
from tests.loadtest.builders import FP32, USERS, counters, played, request


def cell(*rounds: Played) -> Cell:
    return summarise(FP32, USERS, rounds, images_per_request=1, timeout=30.0)


def answers(latencies: list[float], failed: int) -> Played:
    """Return a round of one second whose last `failed` requests end in an error."""
    errors = [""] * (len(latencies) - failed) + ["503"] * failed
    return played(FP32, [request(0.5, t, i, error) for i, (t, error) in enumerate(zip(latencies, errors, strict=True))])


def test_requests_that_failed_stay_in_the_tail() -> None:
    """18 of 1000 fail at once: they count as the timeout in the p99, and not at all in the mean."""
    found = cell(answers([0.01] * 982 + [0.001] * 18, failed=18))
    assert (found.latency.requests, found.latency.p99) == (982, 30.0)
    assert found.latency.mean == pytest.approx(0.01)
    assert found.latency.p95 == pytest.approx(0.01)
    assert found.rounds[0].errors == 18
    assert found.rounds[0].latencies.count(30.0) == 18


def test_fewer_failures_than_the_tail_do_not_move_it() -> None:
    """With nine failures of 1000, the p99 is still an answered request's."""
    assert cell(answers([0.01] * 1000, failed=9)).latency.p99 == pytest.approx(0.01)


def test_the_phases_are_those_of_the_service() -> None:
    """The load test keeps its own list, as it imports nothing of the service; both lists are equal."""
    assert tuple(PHASES) == metrics.PHASES


def test_each_phase_has_its_own_time() -> None:
    """Two requests of 50 ms each: the upload takes 8 ms of them and shows as `receive`, not as the rest."""
    duration, phase = "precision_request_duration_seconds", "precision_phase_duration_seconds"
    sums = {"receive": 0.016, "decode": 0.004, "queue": 0.010, "inference": 0.060, "encode": 0.004, "other": 0.006}
    server = counters(
        {(duration + "_sum", ""): 0.1, (duration + "_count", ""): 2}
        | {(phase + "_sum", name): seconds for name, seconds in sums.items()}
        | {(phase + "_count", name): 2 for name in sums}
    )
    found = cell(played(FP32, [request(0.1, 0.055), request(0.2, 0.055)], server=server))
    shown = {name: milliseconds for name, milliseconds in parts(found).items() if milliseconds}
    expected = {"receive": 8, "decode": 2, "queue": 5, "inference": 30, "encode": 2, "other": 3, "outside": 5}
    assert shown == pytest.approx(expected)
    assert sum(shown.values()) == pytest.approx(55)


def test_a_service_without_phases_has_no_parts() -> None:
    """None of the request's time is attributed to the network then."""
    assert parts(cell(played(FP32, [request(0.1, 0.055)]))) == {}

"""The runs that are marked INVALID."""

from typing import Any

import pytest

from loadtest.client.scrape import Scrape
from tests.loadtest.builders import FP32, played, report, request


def counted(**counters: float) -> Scrape:
    return Scrape({(f"precision_{name}_total", frozenset()): value for name, value in counters.items()})


def reasons(requests: int = 1000, failed: int = 0, **changes: Any) -> tuple[str, ...]:
    """Return why a run of one round is INVALID; each answer takes 10 ms."""
    errors = ["503 Too many"] * failed + [""] * (requests - failed)
    sent = [request(0.5, 0.01, sequence, error) for sequence, error in enumerate(errors)]
    return report([played(FP32, sent, **({"server": counted(requests=1000)} | changes))]).invalid


def test_a_sound_run_is_valid() -> None:
    """There is no reason to mark it."""
    assert reasons() == ()


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"failed": 11}, "11 of 1000 requests failed (1.1%, limit 1.0%), most with: 503 Too many"),
        ({"requests": 0, "server": counted(requests=0)}, "no request was due"),
        ({"cpu": 0.95}, "the load generator was the bottleneck"),
        ({"lateness": (0.005,)}, "a tenth of its wake-ups by more than 5.0 ms"),
        ({"server": counted(requests=1000, worker_restarts=2)}, "restarted its worker 2 times"),
        ({"server": counted(requests=2000)}, "the service counted 2000 requests where this run sent 1000"),
        ({"foreign": 11}, "answered 11 requests to other variants meanwhile"),
    ],
)
def test_an_unsound_run_says_why(changes: dict[str, Any], reason: str) -> None:
    """Each condition alone marks the run, and is its only reason."""
    (said,) = reasons(**changes)
    assert said.startswith("fp32, 8 users: ")
    assert reason in said


def test_a_run_that_could_not_go_on_is_invalid() -> None:
    """The problem of the run is the reason."""
    sent = [request(0.5, 0.01)]
    made = report([played(FP32, sent, server=counted(requests=1))], problems=("the service went away",), partial=True)
    assert made.invalid == ("the service went away",)

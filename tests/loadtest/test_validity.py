"""Which runs are marked INVALID."""

from typing import Any

import pytest

from loadtest.analysis.validity import invalid

SERVER = {"requests": 1010, "requests_sent": 1010, "requests_of_others": 0, "shadowed": 0, "restarts": 0}


def report(**changes: Any) -> dict[str, Any]:
    """A sound report with one cell, changed."""
    cell = {
        "arm": "fp32",
        "workload": "8 users",
        "requests": 1000,
        "errors": {},
        "latency": {"p50": 0.01},
        "server": SERVER,
        "rounds": [{"client_cpu": 0.3, "late_p90": 0.0005}],
    }
    return {"settings": {"error_limit": 0.01}, "cells": [cell | changes]}


def test_a_sound_run_is_valid() -> None:
    """No reason, no mark."""
    assert invalid(report()) == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"errors": {"503 Too many": 11}}, "11 of 1000 requests failed (1.1%, limit 1.0%), most with: 503 Too many"),
        ({"requests": 0}, "no request was due"),
        ({"rounds": [{"client_cpu": 0.95, "late_p90": 0.0}]}, "the load generator was the bottleneck"),
        ({"rounds": [{"client_cpu": 0.3, "late_p90": 0.005}]}, "a tenth of its wake-ups by more than 5.0 ms"),
        ({"server": SERVER | {"restarts": 2}}, "restarted its worker 2 times"),
        ({"server": SERVER | {"requests": 2000}}, "the service counted 2000 requests where this run sent 1010"),
        ({"server": SERVER | {"requests_of_others": 11}}, "answered 11 requests to other variants meanwhile"),
    ],
)
def test_an_unsound_run_says_why(changes: dict[str, Any], reason: str) -> None:
    """Each condition alone marks the run."""
    found = invalid(report(**changes))
    assert len(found) == 1
    assert reason in found[0]

"""The runs that are marked INVALID."""

from typing import Any

import pytest

from loadtest.client.scrape import Scrape
from loadtest.plan import Workload
from loadtest.records import NEVER_SENT
from loadtest.report.markdown import markdown
from loadtest.slo.level import Found, Level, Trial
from tests.loadtest.builders import FP32, INT8, USERS, played, report, request, settings


def counted(**counters: float) -> Scrape:
    return Scrape({(f"precision_{name}_total", frozenset()): value for name, value in counters.items()})


def reasons(requests: int = 1000, failed: int = 0, **changes: Any) -> list[str]:
    """Return why a run of one round is INVALID; each answer takes 10 ms."""
    errors = ["503 Too many"] * failed + [""] * (requests - failed)
    sent = [request(0.5, 0.01, sequence, error) for sequence, error in enumerate(errors)]
    return report([played(FP32, sent, **({"server": counted(requests=1000)} | changes))]).reasons


def test_a_sound_run_is_valid() -> None:
    """There is no reason to mark it."""
    assert reasons() == []


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"failed": 11}, "11 of 1000 requests failed (1.1%, limit 1.0%), most with: 503 Too many"),
        ({"requests": 0, "server": counted(requests=0)}, "no request was due"),
        ({"cpu": 0.95}, "generator limited: it used 95% of the one core"),
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


OPEN = Workload(rate=1000)


@pytest.mark.parametrize(
    ("latency", "late", "starved", "reason"),
    [
        (0.6, 0.0, 11, "11 were due while every user waited for an answer: give more --users"),
        (0.002, 0.0003, 0, "sent 0.30 ms late or later, which is more than a tenth of the p50 (2.00 ms)"),
    ],
)
def test_the_limits_of_the_generator_make_an_open_cell_invalid(
    latency: float, late: float, starved: int, reason: str
) -> None:
    """The reason says that the generator was the limit, and does not blame the service."""
    sent = [request(0.5, latency, i)._replace(start=0.5 + late) for i in range(1000)]
    cell = played(FP32, sent, OPEN, server=counted(requests=1000), starved=starved)
    made = report([cell], settings(workloads=(OPEN,)))
    (said,) = made.reasons
    assert said.startswith("fp32, 1000 requests/s: generator limited: ")
    assert said.endswith(reason)
    assert not any("more than it can hold" in note for note in made.notes)


def test_a_request_that_was_never_sent_fails_because_of_the_generator() -> None:
    """It counts as due, and the only reason is the generator's."""
    sent = [request(0.5, 0.01, i, NEVER_SENT if i < 50 else "") for i in range(1000)]
    (said,) = report([played(FP32, sent, OPEN, server=counted(requests=950))], settings(workloads=(OPEN,))).reasons
    assert "generator limited: 50 of 1,000 due requests were never sent" in said


def test_a_search_that_the_generator_limited_makes_the_run_invalid() -> None:
    """The level names the load that the generator could not put on the service."""
    trial = Trial(load=60.0, requests=100, over=90, held=False, limited=True)
    found = Found(50.0, None, "the load generator was too slow for a higher one", (trial,))
    level = Level("fp32", "p99 <= 50 ms", "requests/s", 90.0, found)
    made = report([played(FP32, [request(0.5, 0.01)], server=counted(requests=1))], levels=(level,))
    (said,) = made.reasons
    assert said.startswith("fp32, p99 <= 50 ms: generator limited: it could not put 60 requests/s on the service")


def test_a_run_that_could_not_go_on_is_invalid() -> None:
    """The problem of the run is the reason."""
    sent = [request(0.5, 0.01)]
    made = report([played(FP32, sent, server=counted(requests=1))], problems=("the service went away",), partial=True)
    assert made.invalid == ("the service went away",)


def test_a_cell_that_is_invalid_leaves_the_others_their_verdicts() -> None:
    """fp32 fails under 8 users, so nothing is said there; the pair under one user keeps its verdict and is named."""
    one = Workload(concurrency=1)
    good = [request(0.01 * i, 0.01, i) for i in range(90)]
    bad = [r._replace(error="503 Too many") for r in good]
    some = [
        played(arm, bad if (arm, load) == (FP32, USERS) else good, load, block, server=counted(requests=90))
        for block in range(6)
        for load in (one, USERS)
        for arm in (FP32, INT8)
    ]
    made = report(some, settings(workloads=(one, USERS)))
    said = {verdict.subject: verdict.verdicts for verdict in made.verdicts}
    assert "int8 against fp32, 8 users" not in said
    assert said["int8 against fp32, 1 user"][0].startswith("throughput: no difference shown")
    assert not made.is_void
    text = markdown(made)
    assert "get no verdict. Valid: fp32, 1 user; int8, 1 user; int8, 8 users." in text
    assert text.index("- 1 user: **fp32**, no gain of int8 shown") < text.index("**INVALID**")
    assert text.index("**INVALID**") < text.index("int8 against fp32, 1 user:")


def test_a_void_report_has_no_verdicts() -> None:
    """INVALID never stands above results in words."""
    sent = [request(0.5, 0.01, i, answer=1) for i in range(100)]
    some = [played(arm, sent, block=block) for block in range(6) for arm in (FP32, INT8)]
    made = report(some, problems=("the service went away",))
    assert (made.is_void, made.verdicts, made.summary) == (True, (), ())
    assert "no number of the table must be used" in markdown(made)

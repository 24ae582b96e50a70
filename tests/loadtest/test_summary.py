"""A cell's numbers from its requests."""

import math

from loadtest.analysis.summary import cell
from loadtest.client.scrape import Scrape
from loadtest.plan import Arm, Round, Workload
from loadtest.records import Played, Request

ARM, WORKLOAD = Arm("fp32", "http://a", "fp32", {}), Workload(concurrency=1)


def played(latencies: list[float], failed: int) -> Played:
    """A round of a second; the last `failed` requests ended in an error, at once."""
    nan = math.nan
    errors = [""] * (len(latencies) - failed) + ["503"] * failed
    records = [
        Request(i, 0.5, 0.5, 0.5 + latency, 503 if error else 200, error, (), nan, nan, nan, nan)
        for i, (latency, error) in enumerate(zip(latencies, errors, strict=True))
    ]
    return Played(ARM, Round((ARM,), WORKLOAD, 0, 0.0, 1.0, 0), 0.0, 1.0, records, Scrape({}), Scrape({}), 0.1)


def test_requests_that_failed_stay_in_the_tail() -> None:
    """18 of 1000 fail at once: the p99 is theirs, as if each had taken the whole timeout; the mean is the others'."""
    found = cell(ARM, WORKLOAD, [played([0.01] * 982 + [0.001] * 18, failed=18)], 1, timeout=30.0)
    assert (found["latency"]["requests"], found["latency"]["p99"]) == (982, 30.0)
    assert math.isclose(found["latency"]["mean"], 0.01, rel_tol=1e-6)
    assert math.isclose(found["latency"]["p95"], 0.01, rel_tol=1e-6)
    assert found["rounds"][0]["errors"] == 18
    assert found["rounds"][0]["latencies"].count(30.0) == 18


def test_fewer_failures_than_the_tail_do_not_move_it() -> None:
    """Nine of 1000: the p99 is still an answered request's."""
    found = cell(ARM, WORKLOAD, [played([0.01] * 1000, failed=9)], 1, timeout=30.0)
    assert math.isclose(found["latency"]["p99"], 0.01, rel_tol=1e-6)

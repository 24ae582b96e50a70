"""A service whose HTTP process is the limit: the report says so, and does not call the variants equal."""

import pytest

from loadtest.analysis.decisions import decisions
from loadtest.client.scrape import Scrape
from loadtest.drive import recorded
from loadtest.report.document import Report
from tests.loadtest.builders import FP32, INT8, URL, played, report, request

SENT = [request(i / 100, 0.0125, i) for i in range(100)]
CPU = ("process_cpu_seconds_total", frozenset[tuple[str, str]]())


def run(fp32: float | None, int8: float | None) -> Report:
    """Return a run of two equally fast variants, during which the HTTP process used so much processor time."""
    rounds = [(FP32, fp32), (INT8, int8)]
    return report([played(arm, SENT, block=block, front_cpu=cpu) for block in range(8) for arm, cpu in rounds])


def test_a_cell_whose_front_is_the_limit_says_so() -> None:
    """The note names the cell and the share; nothing is decided, though no gain is shown."""
    made = run(0.4, 0.97)
    (note,) = [note for note in made.notes if "HTTP process" in note]
    assert note.startswith("int8, 8 users: the service's HTTP process was the limit, it used 97%")
    (decision,) = decisions(made)
    assert decision.sentence.startswith("8 users: no decision, the service's HTTP process was the limit of int8 (")


@pytest.mark.parametrize("share", [0.4, None])
def test_a_front_with_time_left_is_not_mentioned(share: float | None) -> None:
    """Nor is one that states nothing; then no gain of int8 is shown."""
    made = run(share, share)
    assert not [note for note in made.notes if "HTTP process" in note]
    assert "HTTP process" not in decisions(made)[0].sentence


def test_the_share_is_of_the_time_from_the_first_request_to_the_last_answer() -> None:
    """Half a second of processor time in a round of one second."""
    one = played(FP32, SENT)
    before, after = {URL: Scrape({CPU: 10.0})}, {URL: Scrape({CPU: 10.5})}
    (part,) = recorded([(one.round, one.stretch)], before, after)
    assert part.front_cpu == pytest.approx(0.5, rel=0.01)
    assert recorded([(one.round, one.stretch)] * 2, before, after)[0].front_cpu is None

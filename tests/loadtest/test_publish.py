"""The results on a terminal of 80 columns."""

from dataclasses import replace

import pytest

from loadtest.client.server import Excluded
from loadtest.plan import Workload
from loadtest.report.document import Report
from loadtest.report.publish import summary
from tests.loadtest.builders import URL, USERS, arm, played, report, request, settings

RATE = Workload(rate=3000)
LONG = "int8-dynamic @ the-candidate-of-the-release-in-march"


@pytest.fixture(scope="module")
def made() -> Report:
    """A report with everything that is long: names, numbers, reasons, notes and prices."""
    arms = (arm("fp32", device="cuda:0"), arm("int8-dynamic", URL, LONG, device="cpu", reference="fp32"))
    fast = [request(i / 6000, 0.0101, i) for i in range(300)]
    slow = [request(0.1, 12.3456789, i) for i in range(300)]
    some = [
        played(one, sent, workload, block)
        for block in range(6)
        for one, sent in zip(arms, (slow, fast), strict=True)
        for workload in (USERS, RATE)
    ]
    flaws = ("fp32, 8 users: the service said something so long that it does not fit a line of any terminal at all",)
    whole = report(some, settings(workloads=(USERS, RATE), price_per_hour=123.45))
    return replace(whole, notes=flaws, excluded=(Excluded("fp16", "no GPU"),))


def test_no_line_is_longer_than_a_terminal(made: Report) -> None:
    """The table breaks the long name of a variant, sentences go on in the next line."""
    printed = summary(made)
    assert max(map(len, printed.splitlines())) <= 80
    assert "12,345.68" in printed
    assert "3000 requests/s" in printed


def test_the_decisions_come_last(made: Report) -> None:
    """The reader sees them when the run ends."""
    last = summary(made).split("\n\n")[-1]
    assert last.count("=> ") == len(made.decisions) == 2


def test_no_word_is_lost(made: Report) -> None:
    """Only spaces and ends of lines differ from the sentences of the report."""
    printed = " ".join(summary(made).split())
    for sentence in (*made.summary, *(decision.sentence for decision in made.decisions)):
        assert " ".join(sentence.split()) in printed

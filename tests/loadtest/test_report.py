"""The HTML and Markdown of a report."""

import re
from dataclasses import replace

import numpy as np
import pytest

from common.statistics import Interval
from loadtest.report.cells import Memory
from loadtest.report.document import Report
from loadtest.report.html import html
from loadtest.report.markdown import markdown
from loadtest.report.svg import COLOURS, colours
from loadtest.report.table import batch_memory, table
from tests.loadtest.builders import arm, played, report, request, settings

ARMS = (arm("fp32", device="cuda:0"), arm("int8", device="cpu", reference="fp32-cpu"))


@pytest.fixture
def made() -> Report:
    """A report of two arms on two devices under one workload, whose service states as little as possible."""
    latencies = np.random.default_rng(0).gamma(4, 0.003, 100)
    sent = [request(0.1, float(latency), i, answer=1) for i, latency in enumerate(latencies)]
    return report([played(one, sent) for one in ARMS], problems=("fp32, 8 users: <b>late</b>",))


def row_of(made: Report, number: int) -> dict[str, str]:
    """Return one row of the table by its headers."""
    found = table(made)
    return dict(zip(found.headers, found.rows[number], strict=True))


def test_the_page_loads_nothing(made: Report) -> None:
    """No link, script, style sheet, image or font is fetched."""
    page = html(made)
    assert "<script" not in page
    assert not re.search(r"""(?:src|href)=["'](?!#)""", page)
    assert not re.search(r"url\((?!#)", page)
    assert len(page) < 500_000


def test_text_from_a_service_is_escaped(made: Report) -> None:
    """Markup in a reason is text on the page."""
    assert "&lt;b&gt;late" in html(made)
    assert "<b>late" not in html(made)


def test_devices_have_charts_of_their_own(made: Report) -> None:
    """No chart shows two devices side by side."""
    assert re.findall(r"<h2>On (\S+?)</h2>", html(made)) == ["cuda:0", "cpu"]


def test_a_number_that_was_not_measured_is_a_dash(made: Report) -> None:
    """100 requests state a p50, but no p99; the service states no inference time."""
    row = row_of(made, 0)
    assert re.fullmatch(r"\d+\.\d\d", row["p50 ms"])
    assert (row["p99 ms"], row["inference ms"], row["batch"], row["process MB"]) == ("-", "-", "-", "-")


def test_the_markdown_table_has_a_row_per_cell(made: Report) -> None:
    """Two cells are two rows after the header and its line."""
    lines = [line for line in markdown(made).splitlines() if line.startswith("|")]
    assert len(lines) == 2 + 2
    assert "**INVALID**" in markdown(made)


def test_the_rounds_are_those_that_were_played() -> None:
    """One arm played one round, the other two."""
    sent = [request(0.1, 0.01, i) for i in range(20)]
    some = [played(ARMS[0], sent), played(ARMS[1], sent), played(ARMS[1], sent, block=1)]
    assert "1 to 2 rounds of 1 s per cell, arms interleaved (ABBA), 0.25 s to settle" in markdown(report(some))
    contended = report(some, settings(contended=True))
    assert "1 to 2 rounds of 1 s per cell, all arms loaded at once, 0.25 s to settle" in markdown(contended)


def test_the_machines_are_described(made: Report) -> None:
    """The load generator's line names the platform, the service's lines what it states."""
    text = markdown(made)
    assert f"{made.client.cores} cores, {made.client.platform}, locust {made.client.locust}" in text
    assert "- service: version fake" in text


@pytest.mark.parametrize(
    ("batch", "text"),
    [
        ({"activation_peak": 3e6}, "≥ 3.0"),
        ({"cuda_graph": 3e6}, "≤ 3.0"),
        ({"cuda_peak": 3e6}, "3.0"),
        ({"activation_peak": 0.0}, "-"),
        ({}, "-"),
    ],
)
def test_the_memory_of_a_batch_says_which_bound_it_is(batch: dict[str, float], text: str) -> None:
    """The CPU's number is a lower bound, a CUDA graph's an upper one."""
    assert batch_memory(batch) == text


def test_process_memory_is_pss_where_there_is_one(made: Report) -> None:
    """RSS counts shared pages for every process, so PSS comes first."""
    first = made.cells[0]
    memory = Memory({}, {}, {"rss": 9e8, "pss": 5e8})
    changed = replace(made, cells=(replace(first, server=replace(first.server, memory=memory)),))
    assert row_of(changed, 0)["process MB"] == "500"


def test_agreement_is_a_share_of_the_images_that_both_answered(made: Report) -> None:
    """Both arms gave the same answer to all 100 images."""
    row = row_of(made, 1)
    assert (row["accuracy"], row["agreement"]) == ("100.00 %", "100.00 %")
    assert isinstance(made.accuracy[1].accuracy, Interval)


def test_no_two_arms_share_a_colour() -> None:
    """The same variants of two services have four colours; fp32 of the first one keeps its own."""
    shades = colours(["fp32 @ a", "int8 @ a", "fp32 @ b", "int8 @ b"])
    assert len(set(shades.values())) == 4
    assert shades["fp32 @ a"] == COLOURS[0]

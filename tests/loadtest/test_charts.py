"""The numbers behind the charts, and the words that stand for a chart to a reader who does not see it."""

import re
from dataclasses import replace

import numpy as np
import pytest

from common.statistics import Interval
from loadtest.plan import Workload
from loadtest.report.curves import depth, tail_curve, track
from loadtest.report.document import Report
from loadtest.report.forest import forest, rows
from loadtest.report.html import html
from tests.loadtest.builders import FP32, INT8, USERS, played, report, request, settings

OPEN = Workload(rate=50)


@pytest.fixture(scope="module")
def whole() -> Report:
    """A report of twelve rounds of fp32 and int8 under eight users and under a rate.

    int8 takes half as long. The rounds begin two seconds apart.
    """
    rng = np.random.default_rng(1)
    some = []
    for number in range(48):
        arm, workload, block = (FP32, INT8)[number % 2], (USERS, OPEN)[number // 2 % 2], number // 4
        latencies = (0.5 if arm is INT8 else 1.0) * rng.gamma(9, 0.002, 50)
        one = played(arm, [request(0.0, float(t), i) for i, t in enumerate(latencies)], workload, block)
        moved = [r._replace(intended=2.0 * number, start=2.0 * number, end=r.end + 2.0 * number) for r in one.requests]
        stretch = replace(one.stretch, opened=2.0 * number, closed=2.0 * number + 1, requests={arm.name: moved})
        some.append(replace(one, stretch=stretch))
    return report(some, settings(workloads=(USERS, OPEN)))


def test_a_round_has_its_time_and_its_quantiles(whole: Report) -> None:
    """The second round of fp32 with 8 users begins 8 s after the first one."""
    (cell,) = [c for c in whole.cells if (c.arm, c.workload) == ("fp32", "8 users")]
    drawn = track(cell)
    assert drawn.seconds[:3] == (0.0, 8.0, 16.0)
    first = np.array(cell.rounds[0].latencies)
    assert drawn.p50[0] == pytest.approx(1000 * np.quantile(first, 0.5, method="inverted_cdf"))
    assert drawn.p95[0] == pytest.approx(1000 * np.quantile(first, 0.95, method="inverted_cdf"))


def test_each_nine_takes_the_same_room() -> None:
    """p90, p99 and p99.9 lie at 1, 2 and 3."""
    assert depth(np.array([0.9, 0.99, 0.999])) == pytest.approx([1, 2, 3])


def test_the_tail_ends_where_requests_are_too_few(whole: Report) -> None:
    """600 requests state the p99, which needs 459, and not the p99.9, which needs 4,603."""
    cell = whole.cells[0]
    shares, milliseconds = tail_curve(cell)
    assert 0.99 < shares[-1] < 0.999
    assert cell.latency.p99 is not None
    assert np.interp(0.99, shares, milliseconds) == pytest.approx(1000 * cell.latency.p99, rel=0.05)


def test_the_forest_shows_speed_on_both_axes(whole: Report) -> None:
    """int8 takes half as long: twice the speed at p50. Under a rate, images per second say nothing and are left out."""
    assert [row.workload for row in rows(whole, "images_per_second")] == ["8 users"]
    found = rows(whole, "p50")
    assert [row.workload for row in found] == ["8 users", "50 requests/s"]
    assert [row.ratio.estimate for row in found] == pytest.approx([2, 2], rel=0.1)
    assert all(row.ratio.low is not None and row.ratio.low > 1 for row in found)


def test_the_forest_shows_valid_cells_alone(whole: Report) -> None:
    """A cell that is INVALID has no row; without any row there is no plot."""
    broken = tuple(replace(cell, invalid=("late",)) if cell.rate is None else cell for cell in whole.cells)
    assert [row.workload for row in rows(replace(whole, cells=broken), "p50")] == ["50 requests/s"]
    assert forest(replace(whole, invalid=("replaced",))) == []


@pytest.mark.parametrize(("arms", "is_shown"), [({"fp32", "int8"}, True), ({"fp32"}, False)])
def test_a_rate_that_no_arm_holds_has_its_images_in_the_forest(whole: Report, arms: set[str], is_shown: bool) -> None:
    """An arm that holds it could answer more. Latencies of an overloaded arm only show how long the rounds were."""
    over = tuple(replace(cell, saturated=True) if cell.rate and cell.arm in arms else cell for cell in whole.cells)
    changed = replace(whole, cells=over)
    assert ("50 requests/s" in [row.workload for row in rows(changed, "images_per_second")]) == is_shown
    assert "50 requests/s" not in [row.workload for row in rows(changed, "p50")]


def test_a_ratio_without_an_interval_is_drawn(whole: Report) -> None:
    """Too few rounds give an estimate alone."""
    few = tuple(
        replace(c, ratios=replace(c.ratios, p50=Interval(0.5, None, None), images_per_second=None, p99=None))
        for c in whole.comparisons
    )
    (chart,) = forest(replace(whole, comparisons=few))
    assert "8 users, int8 against fp32: 2.00 x" in chart.alt


ALTERNATIVES = re.compile(r'<figure><h3>(.*?)</h3><div role="img" aria-label="(.*?)">', re.DOTALL)
"""The title of each chart of a page, and the text that stands for it."""


def test_every_chart_has_its_numbers_in_words(whole: Report) -> None:
    """A screen reader gets the ratios, the quantiles and the spans of the rounds."""
    page = html(whole)
    words = dict(ALTERNATIVES.findall(page))
    assert page.count("<figure>") == len(words)
    assert re.search(r"8 users, int8 against fp32: \d\.\d\d x \[", words["Speed at p50"])
    assert re.search(r"fp32: p50 \S+ ms, p95 \S+ ms, p99 \S+ ms", words["Tail, 8 users"])
    assert re.search(r"fp32 from \S+ to \S+ ms; int8 from", words["Over time, 50 requests/s"])
    assert ">p99.9<" in page


def test_unstable_cells_are_shown_over_time(whole: Report) -> None:
    """The chart over time shows why a cell is INVALID; the tail, whose numbers must not be used, is left out."""
    broken = tuple(replace(cell, invalid=("drift",)) if cell.rate is None else cell for cell in whole.cells)
    page = html(replace(whole, cells=broken))
    words = dict(ALTERNATIVES.findall(page))
    assert "Over time, 8 users" in words
    assert "Tail, 8 users" not in words
    assert ">int8 (INVALID)<" in page


def test_a_report_without_a_valid_cell_shows_time_alone(whole: Report) -> None:
    """Every other chart would show numbers that must not be used."""
    broken = tuple(replace(cell, invalid=("drift",)) for cell in whole.cells)
    titles = [title for title, _ in ALTERNATIVES.findall(html(replace(whole, cells=broken)))]
    assert titles == ["Over time, 8 users", "Over time, 50 requests/s"]

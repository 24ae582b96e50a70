"""The forest plot: the ratio of every arm to its baseline with its interval, a row per workload."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from common.statistics import Interval
from loadtest.analysis.words import inverse, times
from loadtest.report.document import Comparison, Report
from loadtest.report.svg import INK, PAPER, SOFT, STYLE, Chart, colours, figure, svg

TITLES = {
    "images_per_second": "Images per second",
    "p50": "Speed at p50",
    "p99": "Speed at p99",
    "energy": "Images per joule",
}
"""The panels: field of `Ratios`, and title. In all of them right is better."""


@dataclass(frozen=True)
class Row:
    """One row of the plot."""

    arm: str
    baseline: str
    workload: str
    ratio: Interval
    """Above 1 the arm is better than its baseline."""

    @property
    def words(self) -> str:
        """The row in words."""
        return f"{self.workload}, {self.arm} against {self.baseline}: {times(self.ratio)}"


def rows(report: Report, metric: str) -> list[Row]:
    """Return the rows of one metric, of valid cells.

    An open workload has a ratio of images per second only if neither arm holds it: an arm that holds it answers the
    rate, and could answer more. If one of the arms does not hold it, its latencies only show how long the rounds were.
    """
    return [
        Row(c.arm, c.baseline, c.workload, ratio if metric == "images_per_second" else inverse(ratio))
        for c in report.comparisons
        if (ratio := getattr(c.ratios, metric)) and is_meaningful(report, c, metric)
    ]


def is_meaningful(report: Report, comparison: Comparison, metric: str) -> bool:
    """Return whether a ratio of this metric says something about the two cells of a comparison."""
    cells = report.sides(comparison)
    if report.invalid or any(cell.invalid for cell in cells):
        return False
    if metric == "images_per_second":
        return cells[0].rate is None or all(cell.saturated for cell in cells)
    return metric == "energy" or not any(cell.saturated for cell in cells)


def forest(report: Report) -> list[Chart]:
    """Return a chart per metric that has rows."""
    shades = colours([arm.name for arm in report.arms])
    with mpl.rc_context(STYLE):
        return [panel(title, found, shades) for metric, title in TITLES.items() if (found := rows(report, metric))]


def panel(title: str, found: Sequence[Row], shades: Mapping[str, str]) -> Chart:
    """Return the chart of one metric: a dot and an interval per row, and a line at 1."""
    made, (axes,) = figure(0.75 + 0.42 * len(found))
    axes.axvline(1, color=SOFT, linewidth=1)
    for place, row in enumerate(reversed(found)):
        draw(axes, place, row, shades[row.arm])
    axes.set_xscale("log")
    bounds = [edge for row in found for edge in (row.ratio.low, row.ratio.high, row.ratio.estimate) if edge]
    axes.set_xlim(min(0.8, *bounds) / 1.08, max(1.25, *bounds) * 1.08)
    axes.set_ylim(-0.5, len(found) - 0.3)
    axes.set_yticks([])
    axes.xaxis.set_major_locator(LogLocator(10, subs=(1, 1.5, 2, 3, 5, 7), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g} x"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.grid(visible=False, axis="y")
    axes.spines["left"].set_visible(False)
    note = "Right of 1 is better than the baseline. An interval that touches 1 shows no difference"
    return Chart(title, f"{note}. {'; '.join(row.words for row in found)}", svg(made), note)


def draw(axes: Axes, place: int, row: Row, colour: str) -> None:
    """Draw one row: its name and numbers above its dot and interval."""
    low, high = (row.ratio.estimate if bound is None else bound for bound in (row.ratio.low, row.ratio.high))
    axes.plot([low, high], [place, place], color=colour, linewidth=2.6, solid_capstyle="round")
    axes.plot([row.ratio.estimate], [place], "o", color=colour, markersize=6.5, markeredgecolor=PAPER)
    for x, text, ink, side in ((0, f"{row.workload}: {row.arm}", INK, "left"), (1, times(row.ratio), SOFT, "right")):
        back = {"facecolor": PAPER, "edgecolor": "none", "pad": 1.2}
        across = axes.get_yaxis_transform()
        axes.text(x, place + 0.22, text, transform=across, fontsize=8.5, color=ink, va="bottom", ha=side, bbox=back)

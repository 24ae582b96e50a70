"""The charts of latencies: over the time of the run, and their distribution up to its tail."""

from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.ticker import FixedLocator, FuncFormatter, LogLocator, NullFormatter

from loadtest.analysis.statistics import Floats, quantile
from loadtest.analysis.words import milliseconds
from loadtest.report.cells import STATED, Cell
from loadtest.report.groups import Group
from loadtest.report.svg import SOFT, Chart, figure, svg

POINTS = 300
"""Points of a distribution's curve: the eye cannot see more."""
TICKS = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "p99.9": 0.999}
"""The quantiles that the axis of the tail names."""
LEAST = 0.1
"""Share of the requests below which the tail's axis begins."""


LONG, SHORT = 300, 3
"""Spans of an axis: from the first on it has fewer ticks, and below the second it is made longer."""


@dataclass(frozen=True)
class Track:
    """The latencies of one cell round by round: seconds since the start of the run, and milliseconds."""

    seconds: tuple[float, ...]
    p50: tuple[float, ...]
    p95: tuple[float, ...]


def track(cell: Cell) -> Track:
    """Return the quantiles of every round in which a request was due."""
    rounds = sorted((one for one in cell.rounds if one.latencies), key=lambda one: one.began)
    p50, p95 = (tuple(1000 * (quantile(one.latencies, q) or 0.0) for one in rounds) for q in (0.50, 0.95))
    return Track(tuple(one.began for one in rounds), p50, p95)


def over_time(group: Group, workload: str) -> Chart | None:
    """Return the chart of the latency of each round over the time of the run, INVALID cells included."""
    cells = [cell for cell in group.everything if cell.workload == workload]
    if max(len(cell.rounds) for cell in cells) < 2:
        return None
    made, (axes,) = figure(2.7)
    for cell in cells:
        drawn = track(cell)
        colour, style = group.colours[cell.arm], "--" if cell.invalid else "-"
        axes.fill_between(drawn.seconds, drawn.p50, drawn.p95, color=colour, alpha=0.16, linewidth=0)
        label = cell.arm + (" (INVALID)" if cell.invalid else "")
        axes.plot(drawn.seconds, drawn.p50, style, marker="o", markersize=2.6, color=colour, label=label, linewidth=1.3)
    logarithmic(axes, "y")
    axes.set_ylabel("latency, ms (log)")
    axes.set_xlabel("seconds since the first round")
    legend(axes, len(cells))
    note = "A dot is the p50 of a round, the band above it goes up to its p95. Parallel lines are a stable comparison"
    spans = "; ".join(
        f"{c.arm} from {milliseconds(min(track(c).p50) / 1000)} to {milliseconds(max(track(c).p50) / 1000)} ms"
        for c in cells
    )
    return Chart(f"Over time, {workload}", f"{note}. The p50 of the rounds: {spans}", svg(made), note)


def tail_curve(cell: Cell) -> tuple[Floats, Floats]:
    """Return shares of requests, and the milliseconds within which they were answered.

    The last share is the highest quantile that the number of requests states (`loadtest.analysis.statistics.enough`).
    """
    values = np.concatenate([np.array(one.latencies) for one in cell.rounds])
    last = 0.01 ** (1 / len(values))
    shares = 1 - np.geomspace(1 - LEAST, min(1 - LEAST, 1 - last), POINTS)
    return shares, 1000 * np.quantile(values, shares, method="inverted_cdf")


def depth(shares: Floats) -> Floats:
    """Return the place of a share on the axis of the tail: p90 at 1, p99 at 2, p99.9 at 3."""
    return np.asarray(-np.log10(1 - shares), dtype=np.float64)


def tails(group: Group, workload: str) -> Chart | None:
    """Return the chart of latency by quantile, on an axis on which each further nine takes the same room."""
    held = group.held(workload)
    if not held:
        return None
    made, (axes,) = figure(2.7)
    for cell in held:
        shares, values = tail_curve(cell)
        axes.plot(depth(shares), values, color=group.colours[cell.arm], label=cell.arm, drawstyle="steps-post")
    places = depth(np.array(list(TICKS.values())))
    axes.xaxis.set_major_locator(FixedLocator(list(places)))
    axes.set_xticks(list(places), list(TICKS))
    axes.set_xlim(depth(np.array([LEAST]))[0], max(3.05, axes.get_xlim()[1]))
    logarithmic(axes, "y")
    axes.set_xlabel("share of the requests answered within the time")
    axes.set_ylabel("latency, ms (log)")
    legend(axes, len(held))
    note = "Lower is better. A line ends where there are too few requests to state more"
    return Chart(f"Tail, {workload}", f"{note}. {'; '.join(quantiles(cell) for cell in held)}", svg(made), note)


def quantiles(cell: Cell) -> str:
    """Return the stated quantiles of a cell in words."""
    names = {"p999": "p99.9"}
    stated = [(names.get(n, n), cell.latency.named(n)) for n in STATED]
    return f"{cell.arm}: " + ", ".join(f"{n} {milliseconds(value)} ms" for n, value in stated if value is not None)


def logarithmic(axes: Axes, which: str) -> None:
    """Make an axis logarithmic, with plain numbers at 1, 2 and 5, or at 1 alone if it is long."""
    getattr(axes, f"set_{which}scale")("log")
    axis = getattr(axes, f"{which}axis")
    low, high = getattr(axes, f"get_{which}lim")()
    axis.set_major_locator(LogLocator(10, subs=(1, 2, 5) if high / low < LONG else (1,), numticks=12))
    axis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,g}"))
    axis.set_minor_formatter(NullFormatter())
    if high / low < SHORT:
        getattr(axes, f"set_{which}lim")(low / 1.6, high * 1.6)


def legend(axes: Axes, arms: int) -> None:
    """Draw the legend above the axes, where it hides no line."""
    axes.legend(loc="lower left", bbox_to_anchor=(-0.02, 1.0), ncols=min(arms, 3), handlelength=1.4, labelcolor=SOFT)

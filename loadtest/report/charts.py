"""The report's charts. Each function takes the results of one device and returns a chart, or None without data."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch
from matplotlib.ticker import FuncFormatter, NullFormatter, PercentFormatter

from common.statistics import Interval
from loadtest.phases import PHASES
from loadtest.report.groups import LATE, OUTSIDE, Group, parts, tail
from loadtest.report.svg import INK, PAPER, SOFT, STYLE, figure, svg

POINTS = 300
"""Points of a distribution's curve: the eye cannot see more."""
VISIBLE = 0.005
"""Share of the longest bar below which a phase is not drawn."""
LEGEND = {LATE: ("not sent yet", "#5c6670"), OUTSIDE: ("network and client", "#c4cbd3")} | {
    name: (p.label, p.colour) for name, p in PHASES.items()
}
"""Label and colour of each part of a request."""


@dataclass(frozen=True)
class Chart:
    """A figure for the page; `alt` says in words what it shows."""

    title: str
    alt: str
    svg: str


def charts(group: Group) -> list[Chart]:
    """Return all charts of one device that its data can fill."""
    with mpl.rc_context(STYLE):
        drawn = [overview(group), *(distribution(group, workload) for workload in group.workloads)]
        drawn += [maker(group) for maker in MAKERS]
    return [chart for chart in drawn if chart]


def distribution(group: Group, workload: str) -> Chart | None:
    """Return the chart of the share of requests that were answered within a time."""
    if not group.held(workload):
        return None
    made, (axes,) = figure(2.9)
    for cell in group.held(workload):
        values = np.concatenate([np.array(r.latencies) for r in cell.rounds])
        shares = np.linspace(0, 1, min(POINTS, len(values)))
        axes.plot(1000 * np.quantile(values, shares), shares, color=group.colours[cell.arm], label=cell.arm)
    milliseconds(axes)
    axes.set_ylim(0, 1.01)
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    axes.set_xlabel("latency, ms (log)")
    axes.legend(loc="best")
    return Chart(f"Latency with {workload}", "Share of requests answered within a time, per variant", svg(made))


def milliseconds(axes: Axes) -> None:
    """Make the horizontal axis logarithmic, with plain numbers at 1, 2 and 5."""
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(mpl.ticker.LogLocator(10, subs=(1, 2, 5), numticks=12))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axes.xaxis.set_minor_formatter(NullFormatter())


def trade(group: Group) -> Chart | None:
    """Return the chart of latency against throughput, with a point per workload."""
    held = [cell for workload in group.workloads for cell in group.held(workload)]
    if not held:
        return None
    made, (axes,) = figure(2.9)
    name = tail(held)
    for arm in group.arms:
        cells = sorted((cell for cell in held if cell.arm == arm), key=lambda cell: cell.images_per_second)
        x, y = [c.images_per_second for c in cells], [1000 * (c.latency.named(name) or 0.0) for c in cells]
        axes.plot(x, y, "o-", color=group.colours[arm], label=arm, markersize=5)
        for cell, point in zip(cells, zip(x, y, strict=True), strict=True):
            axes.annotate(cell.workload, point, (5, 5), textcoords="offset points", color=SOFT, fontsize=8)
    axes.margins(0.2, 0.18)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("images per second")
    axes.set_ylabel(f"{name} latency, ms")
    axes.legend(loc="best")
    return Chart("Latency against throughput", "A point per workload, per variant: right and low is good", svg(made))


def phases(group: Group) -> Chart | None:
    """Return the chart of where the mean request spends its time. Each workload has a panel with its own scale."""
    rows = {w: [(cell.arm, parts(cell)) for cell in reversed(group.held(w))] for w in group.workloads}
    rows = {workload: cells for workload, cells in rows.items() if any(part for _, part in cells)}
    if not rows:
        return None
    sizes = [1.0 + len(cells) for cells in rows.values()]
    made, all_axes = figure(0.7 + 0.3 * sum(sizes), sizes)
    for axes, (workload, cells) in zip(all_axes, rows.items(), strict=True):
        stack(axes, cells)
        axes.set_title(f"{workload}, ms")
    known = [Patch(color=colour, label=label) for label, colour in LEGEND.values() if label in shown(all_axes)]
    made.legend(handles=known, loc="outside upper left", ncols=3, fontsize=8, handlelength=1, columnspacing=1)
    return Chart("Where the time goes", "Mean milliseconds of a request by phase, per variant and workload", svg(made))


def stack(axes: Axes, cells: Sequence[tuple[str, Mapping[str, float]]]) -> None:
    """Draw a bar per arm, its phases in a row, without the phases that are too short to be seen."""
    names, left = [name for name, _ in cells], np.zeros(len(cells))
    longest = max(sum(part.values()) for _, part in cells)
    for phase, (label, colour) in LEGEND.items():
        widths = np.array([part.get(phase, 0.0) for _, part in cells])
        if widths.max() > VISIBLE * longest:
            axes.barh(names, widths, left=left, color=colour, label=label, height=0.62, edgecolor=PAPER, linewidth=0.6)
        left += widths
    horizontal(axes)


def shown(all_axes: Sequence[Axes]) -> set[str]:
    """Return the labels that at least one panel has drawn."""
    return {label for axes in all_axes for label in axes.get_legend_handles_labels()[1]}


def memory(group: Group) -> Chart | None:
    """Return the chart of megabytes by purpose."""
    last = {cell.arm: cell.server.memory for cell in group.cells}
    values: dict[str, dict[str, float | None]] = {
        "weights": {arm: m.weights or None for arm, m in last.items()},
        "a batch, beyond the weights (mean)": {arm: max(m.batch.values(), default=None) for arm, m in last.items()},
        "process": {arm: m.process for arm, m in last.items()},
        "GPU, allocated": {arm: m.now.get("allocated") for arm, m in last.items()},
    }
    panels = {title: row for title, row in values.items() if any(row.values())}
    if not panels:
        return None
    made, all_axes = figure(0.3 + len(panels) * (0.55 + 0.24 * len(last)), [1.0] * len(panels))
    for axes, (title, row) in zip(all_axes, panels.items(), strict=True):
        bars(axes, {arm: (value or 0.0) / 1e6 for arm, value in row.items()}, group.colours)
        axes.set_title(f"{title}, MB")
    return Chart("Memory", "Megabytes of weights, of a batch, and of the process, per variant", svg(made))


def bars(axes: Axes, values: Mapping[str, float], shades: Mapping[str, str]) -> None:
    """Draw a labelled bar per arm."""
    names = list(values)[::-1]
    drawn = axes.barh(names, [values[n] for n in names], color=[shades[n] for n in names], height=0.62)
    axes.bar_label(drawn, fmt="{:,.1f}", padding=4, color=INK, fontsize=8)
    axes.margins(x=0.18)
    horizontal(axes)
    axes.set_xticks([])


def horizontal(axes: Axes) -> None:
    """Remove the lines between the rows, and make the rows' names readable."""
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=INK)


def accuracy(group: Group) -> Chart | None:
    """Return the chart of accuracy, and of the paired difference, which separates two arms far better."""
    shares, differences = group.shares, group.differences
    if not shares:
        return None
    sizes = [1.0 + len(rows) for rows in (shares, differences) if rows]
    made, all_axes = figure(0.3 + 0.3 * sum(sizes), sizes)
    for arm, share in reversed(shares.items()):
        whisker(all_axes[0], arm, share, group.colours[arm])
    all_axes[0].set_title("right answers, % (95 % interval)")
    for arm, (held, difference) in reversed(differences.items()):
        whisker(all_axes[1], f"{arm} - {held.baseline}", difference, group.colours[arm])
    if differences:
        all_axes[1].axvline(0, color=SOFT, linewidth=1)
        all_axes[1].set_title("difference on the same images, points")
    for axes in all_axes:
        axes.margins(x=0.1, y=0.35)
        horizontal(axes)
    return Chart("Accuracy on the images sent", "Accuracy and paired difference with 95 % intervals", svg(made))


def in_percent(interval: Interval) -> tuple[float, float, float]:
    """Return the estimate and the bounds in percent; a missing bound is the estimate."""
    low, high = (interval.estimate if bound is None else bound for bound in (interval.low, interval.high))
    return 100 * interval.estimate, 100 * low, 100 * high


def whisker(axes: Axes, name: str, interval: Interval, colour: str) -> None:
    """Draw a dot and its 95 % interval, in percent."""
    estimate, low, high = in_percent(interval)
    axes.plot([low, high], [name, name], color=colour, linewidth=2.4, solid_capstyle="round")
    axes.plot([estimate], [name], "o", color=colour, markersize=7, markeredgecolor=PAPER)


def overview(group: Group) -> Chart | None:
    """Return the chart of accuracy, tail latency, throughput and memory under the last workload that all arms hold."""
    workload = next((w for w in reversed(group.workloads) if len(group.held(w)) == len(group.of(w))), None)
    cells = [cell for cell in group.held(workload or "") if cell.arm in group.shares]
    if not cells:
        return None
    made, (axes,) = figure(3.1)
    name = tail(cells)
    largest = max(*(cell.server.memory.weights for cell in cells), 1.0)
    for cell in cells:
        weights, colour = cell.server.memory.weights, group.colours[cell.arm]
        x, (y, low, high) = 1000 * (cell.latency.named(name) or 0.0), in_percent(group.shares[cell.arm])
        axes.plot([x, x], [low, high], color=colour, linewidth=1.4)
        axes.scatter([x], [y], s=60 + 700 * weights / largest, color=colour, edgecolors=PAPER, zorder=3)
        text = f"{cell.arm}\n{cell.images_per_second:,.0f} images/s" + (f"\n{weights / 1e6:,.1f} MB" if weights else "")
        axes.annotate(text, (x, y), (17, 8), textcoords="offset points", fontsize=8)
    axes.margins(0.45, 0.2)
    axes.set_xlim(left=0)
    axes.set_xlabel(f"{name} latency with {workload}, ms")
    axes.set_ylabel("accuracy, % (95 % interval)")
    alt = "Accuracy against tail latency: up and left is good. The area is the weights, the label the throughput"
    return Chart("All at once", alt, svg(made))


MAKERS: tuple[Callable[[Group], Chart | None], ...] = (trade, phases, memory, accuracy)

"""The report's charts. Each function takes the results of one device and returns a chart, or None without data."""

from collections.abc import Callable, Mapping, Sequence

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Patch

from common.statistics import Interval
from loadtest.analysis.words import points, significant
from loadtest.phases import PHASES
from loadtest.report.cells import Cell
from loadtest.report.curves import over_time, tails
from loadtest.report.groups import LATE, OUTSIDE, Group, parts, tail
from loadtest.report.svg import INK, PAPER, SOFT, STYLE, Chart, figure, svg

VISIBLE = 0.005
"""Share of the longest bar below which a phase is not drawn."""
LEGEND = {LATE: ("not sent yet", "#5c6670"), OUTSIDE: ("network and client", "#c4cbd3")} | {
    name: (p.label, p.colour) for name, p in PHASES.items()
}
"""Label and colour of each part of a request."""


def charts(group: Group) -> list[Chart]:
    """Return all charts of one device that its data can fill."""
    with mpl.rc_context(STYLE):
        drawn = [over_time(group, workload) for workload in group.timed]
        drawn += [tails(group, workload) for workload in group.workloads]
        drawn += [maker(group) for maker in MAKERS]
    return [chart for chart in drawn if chart]


def trade(group: Group) -> Chart | None:
    """Return the chart of latency against throughput, with a point per workload."""
    held = [cell for workload in group.workloads for cell in group.held(workload)]
    if not held:
        return None
    made, (axes,) = figure(2.9)
    name = tail(held)
    for arm in group.arms:
        cells = sorted((cell for cell in held if cell.arm == arm), key=lambda cell: cell.images_per_second)
        points = [(cell, (cell.images_per_second, 1000 * (cell.latency.named(name) or 0.0))) for cell in cells]
        for cell, point in points:
            axes.annotate(cell.workload, point, (5, 5), textcoords="offset points", color=SOFT, fontsize=8)
        for style, some in (("o-", [p for c, p in points if c.rate is None]), ("s", [p for c, p in points if c.rate])):
            axes.plot([x for x, _ in some], [y for _, y in some], style, color=group.colours[arm], markersize=5)
        axes.plot([], [], "o-", color=group.colours[arm], label=arm, markersize=5)
    axes.margins(0.2, 0.18)
    axes.set_ylim(bottom=0)
    axes.set_xlim(left=0)
    axes.set_xlabel("images per second")
    axes.set_ylabel(f"{name} latency, ms")
    axes.legend(loc="best")
    return Chart(
        "Latency against throughput", "A dot per number of users, a square per rate: right and low is good", svg(made)
    )


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
    note = "Megabytes of weights, of a batch, and of the process, per variant"
    words = [
        f"{title}: {', '.join(f'{arm} {value / 1e6:,.1f} MB' for arm, value in row.items() if value)}"
        for title, row in panels.items()
    ]
    return Chart("Memory", f"{note}. {'; '.join(words)}", svg(made), note)


def bars(axes: Axes, values: Mapping[str, float], shades: Mapping[str, str]) -> None:
    """Draw a labelled bar per arm."""
    names = list(values)[::-1]
    drawn = axes.barh(names, [values[n] for n in names], color=[shades[n] for n in names], height=0.62)
    axes.bar_label(drawn, fmt="{:,.1f}", padding=4, color=INK, fontsize=8)
    axes.margins(x=0.18)
    horizontal(axes)
    axes.set_xticks([])


def energy(group: Group) -> Chart | None:
    """Return the chart of the energy of 1,000 images, and of the idle machine's part. Each workload has a panel."""
    rows = {w: [cell for cell in group.of(w) if cell.energy] for w in group.workloads}
    panels = {workload: cells for workload, cells in rows.items() if cells}
    if not panels:
        return None
    made, all_axes = figure(
        0.5 + sum(0.55 + 0.28 * len(c) for c in panels.values()), [1.0 * len(c) for c in panels.values()]
    )
    for axes, (workload, cells) in zip(all_axes, panels.items(), strict=True):
        for cell in reversed(cells):
            joules(axes, cell, group.colours[cell.arm])
        axes.set_title(f"{workload}, J per 1,000 images")
        axes.margins(x=0.18)
        axes.set_xlim(left=0)
        horizontal(axes)
    words = "; ".join(
        f"{c.arm}, {w}: {significant(c.energy.joules.estimate)} J" for w, cs in panels.items() for c in cs if c.energy
    )
    note = "Joules of the whole machine per 1,000 images, with 95 % intervals. The faint part is the idle machine's"
    return Chart("Energy", f"{note}. {words}", svg(made), note)


def joules(axes: Axes, cell: Cell, colour: str) -> None:
    """Draw the energy of one cell as a bar, with its interval."""
    use = cell.energy
    if use is None:
        return
    idle, total = min(use.idle_joules or 0.0, use.joules.estimate), use.joules.estimate
    axes.barh([cell.arm], [idle], color=colour, alpha=0.35, height=0.62)
    axes.barh([cell.arm], [total - idle], left=[idle], color=colour, height=0.62)
    low, high = (total if bound is None else bound for bound in (use.joules.low, use.joules.high))
    axes.plot([low, high], [cell.arm, cell.arm], color=INK, linewidth=1.4)
    axes.annotate(significant(total), (high, cell.arm), (5, 0), textcoords="offset points", va="center", fontsize=8)


def horizontal(axes: Axes) -> None:
    """Remove the lines between the rows, and make the rows' names readable."""
    axes.grid(visible=False, axis="y")
    axes.tick_params(axis="y", length=0, labelcolor=INK)


def accuracy(group: Group) -> Chart | None:
    """Return the chart of accuracy, and of the paired difference, which separates two arms far better."""
    shares, differences = group.shares, group.differences
    if not (shares and group.cells):
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
    note = "Accuracy and paired difference with 95 % intervals"
    words = [f"{arm} {100 * share.estimate:.2f} %" for arm, share in shares.items()]
    words += [f"{arm} minus {held.baseline}: {points(share)}" for arm, (held, share) in differences.items()]
    return Chart("Accuracy on the images sent", f"{note}. {'; '.join(words)}", svg(made), note)


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


MAKERS: tuple[Callable[[Group], Chart | None], ...] = (memory, energy, accuracy, phases, trade, overview)

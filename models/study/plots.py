"""The two pictures of the page: accuracy against speed, and accuracy against size, with the Pareto front marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

WORST = 4.0
"""Points below the best top-1 that the axis shows. What lost more stands at the lower edge, with its top-1."""
APART = 1.018
"""Factor between the places of points of equal cost, which are drawn side by side."""
EQUAL = 1.08
"""Costs up to this factor apart count as equal: the front is not decided by a few bytes, nor by the noise of a time."""


@dataclass(frozen=True)
class Point:
    """One recipe in a picture."""

    name: str
    family: str
    cost: float
    """Milliseconds or megabytes: less is better."""
    top1: float
    """In percent."""
    low: float
    """The lower end of the 95 % interval of the paired difference, as top-1 in percent."""
    high: float


def groups(points: Sequence[Point]) -> list[list[Point]]:
    """Return the points in groups of equal cost, the cheapest first, in each the best top-1 first."""
    found: list[list[Point]] = []
    for point in sorted(points, key=lambda one: one.cost):
        if found and point.cost <= EQUAL * found[-1][0].cost:
            found[-1].append(point)
        else:
            found.append([point])
    return [sorted(group, key=lambda one: -one.top1) for group in found]


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats in both, the cheapest first."""
    found: list[Point] = []
    for best, *_ in groups(points):
        if not found or best.top1 > found[-1].top1:
            found.append(best)
    return found


def places(points: Sequence[Point]) -> dict[str, float]:
    """Return where each point stands on the axis of costs: equal costs are spread around the least of them."""
    return {
        point.name: min(one.cost for one in group) * APART ** (index - (len(group) - 1) / 2)
        for group in groups(points)
        for index, point in enumerate(group)
    }


def draw(points: Sequence[Point], label: str, title: str, path: Path) -> None:
    """Draw accuracy against cost: a colour for each family, intervals, names, a line through the Pareto front."""
    figure = Figure(figsize=(12, 9), layout="constrained")
    axes = figure.subplots()
    at, floor = places(points), max(point.top1 for point in points) - WORST
    for index, family in enumerate(dict.fromkeys(point.family for point in points)):
        group = [point for point in points if point.family == family]
        _dots(axes, group, at, floor, f"C{index}")
    best = front(points)
    axes.step(
        [at[point.name] for point in best], [point.top1 for point in best], where="post", color="0.4", linestyle="--",
        marker="o", markersize=13, markerfacecolor="none", label="Pareto front", zorder=2,
    )  # fmt: skip
    top, bottom = max(point.high for point in points), max(floor, min(point.low for point in points))
    axes.set_ylim(bottom - 0.08 * (top - bottom), top + 0.3 * (top - bottom))  # room for the names
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.margins(x=0.08)
    axes.set_xlabel(f"{label}; those less than {100 * EQUAL - 100:.0f} % apart stand side by side")
    axes.set_ylabel("top-1, %, with the 95 % interval of the difference from fp32")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8, loc="lower right")
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)


def _dots(axes: Axes, group: Sequence[Point], at: dict[str, float], floor: float, colour: str) -> None:
    """Draw one family, the names upright; what lies below the floor is a triangle on it."""
    for index, point in enumerate(group):
        label, x = (point.family if index == 0 else None), at[point.name]
        if point.top1 < floor:
            axes.plot(x, floor, "v", color=colour, label=label)
            name, place = f"{point.name}: {point.top1:.1f} %", (x, floor)
        else:
            errors = [[point.top1 - point.low], [point.high - point.top1]]
            axes.errorbar(x, point.top1, errors, fmt="o", color=colour, elinewidth=0.8, label=label, zorder=3)
            name, place = point.name, (x, point.high)
        axes.annotate(
            name, place, (0, 5), textcoords="offset points", rotation=90, fontsize=7, ha="center", va="bottom"
        )

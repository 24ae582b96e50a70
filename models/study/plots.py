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


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats in both, the cheapest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda one: (one.cost, -one.top1)):
        if not found or point.top1 > found[-1].top1:
            found.append(point)
    return found


def places(points: Sequence[Point]) -> dict[str, float]:
    """Return where each point stands on the axis of costs: equal costs, to 2 %, are spread around their own place."""
    groups: list[list[Point]] = []
    for point in sorted(points, key=lambda one: one.cost):
        if groups and point.cost <= 1.02 * groups[-1][0].cost:
            groups[-1].append(point)
        else:
            groups.append([point])
    return {
        point.name: point.cost * APART ** (index - (len(group) - 1) / 2)
        for group in groups
        for index, point in enumerate(sorted(group, key=lambda one: -one.top1))
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
    axes.set_ylim(floor - 0.35, max(point.high for point in points) + 1.5)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.margins(x=0.08)
    axes.set_xlabel(f"{label}; equal ones stand side by side")
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

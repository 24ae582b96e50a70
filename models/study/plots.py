"""The two pictures of the page: accuracy against speed, and accuracy against size, with the Pareto front marked."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure


@dataclass(frozen=True)
class Point:
    """One recipe in a picture."""

    name: str
    family: str
    cost: float
    """Milliseconds or megabytes: less is better."""
    top1: float
    """In percent."""


def front(points: Sequence[Point]) -> list[Point]:
    """Return the points that no other one beats in both, the cheapest first."""
    found: list[Point] = []
    for point in sorted(points, key=lambda one: (one.cost, -one.top1)):
        if not found or point.top1 > found[-1].top1:
            found.append(point)
    return found


def draw(points: Sequence[Point], label: str, title: str, path: Path) -> None:
    """Draw accuracy against cost, a colour for each family, a line through the Pareto front."""
    figure = Figure(figsize=(10, 6), layout="constrained")
    axes = figure.subplots()
    for index, family in enumerate(dict.fromkeys(point.family for point in points)):
        group = [point for point in points if point.family == family]
        costs, top1s = [point.cost for point in group], [point.top1 for point in group]
        axes.scatter(costs, top1s, color=f"C{index}", label=family, zorder=3)
    best = front(points)
    costs, top1s = [point.cost for point in best], [point.top1 for point in best]
    axes.step(costs, top1s, where="post", color="0.6", linestyle="--", label="Pareto front", zorder=2)
    for point in best:
        axes.annotate(point.name, (point.cost, point.top1), xytext=(5, 6), textcoords="offset points", fontsize=8)
    axes.set_xscale("log")
    axes.xaxis.set_major_formatter("{x:g}")
    axes.xaxis.set_minor_formatter("{x:g}")
    axes.set_xlabel(label)
    axes.set_ylabel("top-1, %")
    axes.set_title(title)
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=110)

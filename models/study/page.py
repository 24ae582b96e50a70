"""The page of the study, docs/quantization.md, and its pictures."""

from collections.abc import Callable
from pathlib import Path

from models import files
from models.study import plots, tables, texts, verdicts
from models.study.found import Found
from models.study.plots import Point
from models.study.recipes import RECIPES, Recipe

PICTURES = "quantization"
"""The folder of the pictures, beside the page."""


def write(found: Found, path: Path) -> None:
    """Write the page, and its pictures into a folder beside it."""
    folder = path.parent / PICTURES
    parts = [heading(found), verdicts.advice(found), tables.recipes_table(found), tables.missing(found)]
    if by_speed := [p for p in points(found, lambda row: tables.milliseconds(found, row, 1)) if p.cost]:
        plots.draw(by_speed, "latency of one image, ms", "Accuracy against speed", folder / "speed.png")
        parts.append(f"![accuracy against speed]({PICTURES}/speed.png)")
    by_size = points(found, lambda row: found.outcomes[row.name].file_bytes / 1e6)
    plots.draw(by_size, "size on disk, MB", "Accuracy against size", folder / "size.png")
    parts += [f"![accuracy against size]({PICTURES}/size.png)", tables.claims(found), verdicts.bars(found)]
    parts += [verdicts.sensitivity_table(found.sensitivity)] if found.sensitivity else []
    parts += [verdicts.sweep_table(found.sweep)] if found.sweep else []
    parts += [verdicts.toolboxes_table(found), texts.PUBLISHED, texts.NUMERICS, texts.METHODS]
    files.write(path, ("\n\n".join(part.strip() for part in parts if part) + "\n").encode())


def points(found: Found, cost: Callable[[Recipe], float]) -> list[Point]:
    """Return a point for each recipe with a result."""
    return [
        Point(row.name, row.family, cost(row), 100 * found.outcomes[row.name].score.top1.estimate)
        for row in RECIPES.values()
        if row.name in found.outcomes
    ]


def heading(found: Found) -> str:
    """Return the head of the page with the conditions of its numbers."""
    any_one = next(iter(found.outcomes.values()))
    images, machines = any_one.score.images, sorted({one.machine for one in found.outcomes.values()})
    return "\n".join(
        (
            "# Every way to quantize this network, measured\n",
            "Each row is a recipe of `models/study/recipes.py`, made from the bundled FP32 weights by one command with",
            f"fixed seeds, and judged on the same {images:,} test images paired against `fp32`.",
            "`make study` writes this page; it continues where it was stopped.\n",
            f"- `{found.command}`, {max(one.date for one in found.outcomes.values())[:10]}",
            f"- {'; '.join(machines)}",
            "- brackets are 95 % intervals; differences in points; sizes with packed weights; latency is the median of",
            "  one process alone, rows that run as the same graph share one measurement",
        )
    )

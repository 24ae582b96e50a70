"""The page of the study, docs/quantization.md, and its pictures."""

from collections.abc import Callable, Iterable
from pathlib import Path

from models import files
from models.study import plots, sections, tables, texts, verdicts
from models.study.found import Found
from models.study.plots import Point
from models.study.recipes import RECIPES, Recipe
from models.study.results import Outcome

PICTURES = "quantization"
"""The folder of the pictures, beside the page."""


def write(found: Found, path: Path) -> None:
    """Write the page, and its pictures into a folder beside it."""
    parts = [heading(found), verdicts.advice(found), verdicts.bars(found), tables.claims(found)]
    parts += [pictures(found, path.parent / PICTURES), tables.recipes_table(found), tables.missing(found)]
    parts += [sections.sensitivity(found.sensitivity)] if found.sensitivity else []
    parts += [sections.calibration(found.sweep)] if found.sweep else []
    parts += [sections.toolboxes(found), sections.published(found), texts.NUMERICS, texts.METHODS]
    files.write(path, ("\n\n".join(part.strip() for part in parts if part) + "\n").encode())


def pictures(found: Found, folder: Path) -> str:
    """Draw the pictures into the folder and return their part of the page."""
    lines = ["## Accuracy against speed and size\n", texts.PICTURES]
    if by_speed := [p for p in points(found, lambda row: tables.milliseconds(found, row, 1)) if p.cost]:
        plots.draw(by_speed, "latency of one image, ms", "Accuracy against speed", folder / "speed.png")
        lines.append(f"![accuracy against speed]({PICTURES}/speed.png)\n")
    by_size = points(found, lambda row: found.outcomes[row.name].file_bytes / 1e6)
    plots.draw(by_size, "size on disk, MB", "Accuracy against size", folder / "size.png")
    return "\n".join([*lines, f"![accuracy against size]({PICTURES}/size.png)"])


def points(found: Found, cost: Callable[[Recipe], float]) -> list[Point]:
    """Return a point for each recipe with a result."""
    return [
        Point(row.name, row.family, cost(row), 100 * one.score.top1.estimate, *ends(one))
        for row in RECIPES.values()
        if (one := found.outcomes.get(row.name))
    ]


def ends(one: Outcome) -> tuple[float, float]:
    """Return the ends of the interval of the difference from the reference, moved to the recipe's top-1, in percent."""
    top1 = 100 * one.score.top1.estimate
    if one.paired is None:
        return top1, top1
    found = one.paired.difference
    low, high = (found.estimate if end is None else end for end in (found.low, found.high))
    return top1 + 100 * (low - found.estimate), top1 + 100 * (high - found.estimate)


def machines(said: Iterable[str]) -> str:
    """Return each machine once, with the numbers of threads that its results were computed with."""
    threads: dict[str, set[str]] = {}
    for one in said:
        name, _, number = one.removesuffix(" threads").rpartition(", ")
        threads.setdefault(name, set()).add(number)
    return "; ".join(
        f"{name}, {' or '.join(sorted(numbers, key=int))} threads" for name, numbers in sorted(threads.items())
    )


def heading(found: Found) -> str:
    """Return the head of the page with the conditions of its numbers."""
    any_one = next(iter(found.outcomes.values()))
    images = any_one.score.images
    return "\n".join(
        (
            "# Every way to quantize this network, measured\n",
            "Each row is a recipe of `models/study/recipes.py`. All are built from the same FP32 weights,",
            f"with fixed seeds, and judged on the same {images:,} test images, image by image against `fp32`.\n",
            f"- made by `{found.command}`, {max(one.date for one in found.outcomes.values())[:10]}",
            f"- {machines(one.machine for one in found.outcomes.values())}",
            "- differences are in points of top-1; brackets are 95 % intervals; p is McNemar's",
            "- sizes are of packed weights; hash, seconds, date and settings lie in `runs/study/recipes/NAME.json`",
        )
    )

"""Everything that the page of the study shows, read from the results on disk. Imports no torch."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from models.study import results
from models.study.recipes import RECIPES, Recipe
from models.study.results import Outcome
from models.study.sensitivity import Sensitivity
from models.study.speed import Speed, Speeds
from models.study.sweep import Sweep


@dataclass(frozen=True)
class Toolbox:
    """An outside toolbox on the same weights, see benchmarks/toolboxes.py."""

    name: str
    reason: str
    """Why it did not run; empty if it did."""
    outcome: Outcome | None


@dataclass(frozen=True)
class Found:
    """Everything that the page shows."""

    command: str
    outcomes: dict[str, Outcome]
    speeds: dict[str, Speed]
    sensitivity: Sensitivity | None
    sweep: Sweep | None
    toolboxes: tuple[Toolbox, ...]


def read(folder: Path, command: str, outcome_of: Callable[[Recipe], Outcome | None]) -> Found:
    """Return the results in the study's folder; `outcome_of` returns a recipe's result, if it is of these settings."""
    found = {row.name: outcome for row in RECIPES.values() if (outcome := outcome_of(row))}
    speeds = results.load(folder / "speed.json", Speeds)
    toolboxes = (results.load(path, Toolbox) for path in sorted((folder / "toolboxes").glob("*.json")))
    return Found(
        command,
        found,
        {row.name: row for row in speeds.rows} if speeds else {},
        results.load(folder / "sensitivity.json", Sensitivity),
        results.load(folder / "sweep.json", Sweep),
        tuple(one for one in toolboxes if one),
    )

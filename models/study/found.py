"""Everything that the page of the study shows, read from the results on disk. Imports no torch."""

import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from models.study import results
from models.study.recipes import RECIPES, Recipe
from models.study.results import Outcome, T
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


def read(
    folder: Path, command: str, outcome_of: Callable[[Recipe], Outcome | None], identity_of: Callable[[str], str]
) -> Found:
    """Return the results in the study's folder that are of the present settings.

    Args:
        folder: of the results.
        command: that the page names.
        outcome_of: returns a recipe's result, None if there is none.
        identity_of: returns the identity of a measurement by its name.
    """
    found = {row.name: outcome for row in RECIPES.values() if (outcome := outcome_of(row))}

    def parts(name: str, kind: type[T]) -> list[T]:
        loaded = (results.load(path, kind, identity_of(path.stem)) for path in sorted(folder.glob(f"{name}*.json")))
        return [one for one in loaded if one]

    speeds, sensitivities, sweeps = parts("speed", Speeds), parts("sensitivity-", Sensitivity), parts("sweep-", Sweep)
    toolboxes = (results.load(path, Toolbox) for path in sorted((folder / "toolboxes").glob("*.json")))
    return Found(
        command,
        found,
        {row.name: row for one in speeds for row in one.rows},
        replace(sensitivities[0], rows=joined(one.rows for one in sensitivities)) if sensitivities else None,
        replace(sweeps[0], trials=joined(one.trials for one in sweeps)) if sweeps else None,
        tuple(one for one in toolboxes if one),
    )


def joined(parts: Iterable[tuple[T, ...]]) -> tuple[T, ...]:
    """Return the parts in one tuple."""
    return tuple(itertools.chain.from_iterable(parts))

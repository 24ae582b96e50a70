"""The result of each recipe: its type, and its file, from which a stopped study continues. Imports no torch."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TypeVar

from pydantic import TypeAdapter, ValidationError

from models import files
from models.evaluation.statistics import Paired, Score

T = TypeVar("T")


@dataclass(frozen=True)
class Outcome:
    """What a recipe made of the network, and how good its answers are."""

    recipe: str
    identity: str
    """A hash of everything that the result depends on."""
    score: Score
    paired: Paired | None
    """None for the reference."""
    file_bytes: int
    """Size of the file with packed weights, or of the checkpoint in the dtype."""
    sha256: str
    """Of that file; empty for a variant, whose file the study does not write."""
    build_seconds: float
    """Of calibration, optimisation and training."""
    machine: str
    date: str
    """ISO 8601, UTC."""
    note: str = ""


MOST_DB = 200.0
"""Stands for the SQNR of equal values: JSON has no infinity."""


def finite(sqnr_db: float | None) -> float:
    """Return the SQNR, MOST_DB if there is no noise."""
    return MOST_DB if sqnr_db is None else min(sqnr_db, MOST_DB)


def load(path: Path, kind: type[T], identity: str = "") -> T | None:
    """Return the result in a file, None if there is none, or if it has another `identity`."""
    try:
        found = TypeAdapter(kind).validate_json(path.read_bytes())
    except (OSError, ValidationError):
        return None
    return found if not identity or getattr(found, "identity", None) == identity else None


def save(path: Path, found: object) -> None:
    """Write a result, atomically."""
    files.write(path, TypeAdapter(type(found)).dump_json(found, indent=1) + b"\n")


def identity_of(*parts: object) -> str:
    """Return a hash of dataclasses, texts and numbers."""
    said = [asdict(part) if hasattr(part, "__dataclass_fields__") else part for part in parts]  # type: ignore[call-overload]
    return files.sha256(repr(said).encode())[:32]

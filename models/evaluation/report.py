"""What an evaluation found: the types that are written as JSON, and the machine that it ran on."""

import json
import platform
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision

from models import checkpoint, cpu
from models.engines.base import EngineCard
from models.evaluation.batches import Batch, Summary
from models.evaluation.statistics import Paired, Score

CLEAN = "clean"
"""The condition of images as they are."""


@dataclass(frozen=True)
class Result:
    """A variant's answers under one condition, and how they differ from the reference's (None for the reference)."""

    score: Score
    paired: Paired | None


@dataclass
class VariantReport:
    """All that was found out about one variant."""

    engine: EngineCard
    load_seconds: tuple[float, ...]
    """Each of several loads from disk; the first in a process pays for what the others find ready."""
    results: dict[str, Result] = field(default_factory=dict)
    """By condition: `clean`, `jpeg@3`, ..."""
    batches: list[Summary] = field(default_factory=list)


@dataclass
class Report:
    """An evaluation of several variants of one checkpoint."""

    command: str
    date: str
    checkpoint: str
    checkpoint_sha256: str
    data: str
    reference: str
    machine: dict[str, Any]
    variants: dict[str, VariantReport]
    batches: list[Batch] = field(default_factory=list)

    def write(self, place: Path) -> None:
        checkpoint.write(place, (json.dumps(asdict(self), indent=1) + "\n").encode())


def fingerprint() -> dict[str, Any]:
    """The machine and the versions; what runs on which device stands on each engine's card."""
    return {
        "cpu": cpu.name(),
        "isa": cpu.isa(),
        "cores": cpu.available_cores(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
    }

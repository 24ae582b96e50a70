"""What an evaluation found: the types that are written as JSON, and the machine that it ran on."""

import json
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

from models import files
from models.engines.base import EngineInfo
from models.evaluation.batches import Batch, Summary
from models.evaluation.record import IDENTITY
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

    engine: EngineInfo
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
        files.write(place, (json.dumps(asdict(self), indent=1) + "\n").encode())


def record_entry(report: Report, name: str) -> dict[str, Any]:
    """What the card of a variant says of it: the numbers, what they were measured on and the weights they belong to."""
    variant = report.variants[name]
    engine = variant.engine
    return {
        **{field: getattr(engine, field) for field in IDENTITY},
        "data": report.data,
        "command": report.command,
        "date": report.date,
        "machine": report.machine,
        "device": engine.device,
        "device_name": engine.device_name,
        "backend": engine.backend,
        "threads": engine.threads,
        "serialized_bytes": engine.serialized_bytes,
        "parameter_bytes": engine.parameter_bytes,
        "buffer_bytes": engine.buffer_bytes,
        "load_seconds": median(variant.load_seconds),
        "batches": [asdict(summary) for summary in variant.batches],
        "clean": _clean(variant.results[CLEAN]),
        "corrupted": {name: _corrupted(result) for name, result in variant.results.items() if name != CLEAN},
    }


def _clean(result: Result) -> dict[str, Any]:
    """A card has no room for the list of discordant images, which stands in evaluation.json."""
    found = asdict(result)
    if found["paired"]:
        del found["paired"]["discordant"]
    return found


def _corrupted(result: Result) -> dict[str, Any]:
    paired = result.paired
    against = {"difference": asdict(paired.difference), "agreement": paired.agreement.estimate} if paired else {}
    return {"images": result.score.images, "top1": result.score.top1.estimate, **against}

"""The report of an evaluation: its types, and its two files, evaluation.json and the record."""

import json
from dataclasses import asdict, dataclass
from statistics import median
from typing import Any

from models.engines.base import EngineInfo
from models.evaluation.batches import Batch, Summary
from models.evaluation.record import IDENTITY
from models.evaluation.statistics import Paired, Score

CLEAN = "clean"
"""The condition of images that were not corrupted."""


@dataclass(frozen=True)
class Result:
    """How good a variant's answers are under one condition."""

    score: Score
    paired: Paired | None
    """The difference from the reference's answers; None for the reference itself."""


@dataclass(frozen=True)
class VariantReport:
    """The results of one variant."""

    info: EngineInfo
    load_seconds: tuple[float, ...]
    """Of each load from disk. The first one in a process is slower: it also loads libraries and fills caches."""
    results: dict[str, Result]
    """By condition: `clean`, `jpeg@3`, ..."""
    batches: list[Summary]


@dataclass(frozen=True)
class Report:
    """An evaluation of several variants of one checkpoint."""

    command: str
    date: str
    checkpoint: str
    checkpoint_sha256: str
    data: str
    """Where the images come from."""
    classes: tuple[str, ...]
    """Their names, in the order of the network's outputs."""
    reference: str
    machine: dict[str, Any]
    variants: dict[str, VariantReport]
    batches: list[Batch]

    def to_json(self) -> bytes:
        """Return the content of evaluation.json."""
        return (json.dumps(asdict(self), indent=1) + "\n").encode()


def record_entry(report: Report, name: str) -> dict[str, Any]:
    """Return the record of a variant: its numbers, the machine they were measured on, the weights they belong to."""
    variant = report.variants[name]
    info = variant.info
    return {
        **{field: getattr(info, field) for field in IDENTITY},
        "data": report.data,
        "command": report.command,
        "date": report.date,
        "machine": report.machine,
        "device": info.device,
        "device_name": info.device_name,
        "backend": info.backend,
        "threads": info.threads,
        "serialized_bytes": info.serialized_bytes,
        "parameter_bytes": info.parameter_bytes,
        "buffer_bytes": info.buffer_bytes,
        "load_seconds": median(variant.load_seconds),
        "batches": [asdict(summary) for summary in variant.batches],
        "clean": _clean(variant.results[CLEAN]),
        "corrupted": {name: _corrupted(result) for name, result in variant.results.items() if name != CLEAN},
    }


def _clean(result: Result) -> dict[str, Any]:
    """Return the clean result without the list of discordant images, which only evaluation.json has."""
    found = asdict(result)
    if found["paired"]:
        del found["paired"]["discordant"]
    return found


def _corrupted(result: Result) -> dict[str, Any]:
    """Return the shares of a result under corruption."""
    paired = result.paired
    against = {"difference": asdict(paired.difference), "agreement": paired.agreement.estimate} if paired else {}
    return {"images": result.score.images, "top1": result.score.top1.estimate, **against}

"""The record of an evaluation: each variant's numbers, beside the checkpoint as `NAME.evaluation.json`. No torch.

`python -m models.evaluate --record` writes it and `GET /variants` shows it. An entry belongs to the weights, to INT8's
calibration and to the input size that it was measured with; for others it is not shown.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from models import files

SUFFIX = ".evaluation.json"
IDENTITY = ("checkpoint_sha256", "calibration_sha256", "input_size", "mean", "std")
"""Fields of an engine's info; two engines that differ in one of them are different networks."""

Entry = dict[str, Any]
"""One variant's numbers as JSON, see `models.evaluation.report.record_entry`."""


def read(path: Path) -> dict[str, Entry]:
    """Return the record of the checkpoint at `path`, by variant; empty if it was never evaluated.

    Raises:
        CheckpointError: the file is damaged.
    """
    place = files.beside(path, SUFFIX)
    if not place.exists():
        return {}
    try:
        return dict(json.loads(files.read(place)))
    except (ValueError, TypeError) as error:
        raise files.CheckpointError(
            f"{place} cannot be read ({error}); delete it, or write it again: `python -m models.evaluate --record`"
        ) from error


def belongs(entry: Mapping[str, Any], info: Mapping[str, Any]) -> bool:
    """Return whether the entry was measured on the network of the engine with this info (as JSON)."""
    return all(name in info and entry.get(name) == info[name] for name in IDENTITY)


def content(path: Path, found: Mapping[str, Entry]) -> bytes:
    """Return the record of the checkpoint at `path` with these entries; others of the same weights are kept."""
    shas = {entry["checkpoint_sha256"] for entry in found.values()}
    kept = {}
    with suppress(files.CheckpointError):  # a damaged file is replaced
        kept = {name: entry for name, entry in read(path).items() if entry.get("checkpoint_sha256") in shas}
    return (json.dumps(kept | dict(found), indent=1) + "\n").encode()

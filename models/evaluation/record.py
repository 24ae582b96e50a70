"""What an evaluation found about a checkpoint's variants, kept beside it as `NAME.evaluation.json`. Imports no torch.

`python -m models.evaluate --record` writes it, `GET /variants` shows it. A number belongs to the weights, to INT8's
calibration and to the size of image that it was measured with; beside others it is not shown.
"""

import json
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from models import files

SUFFIX = ".evaluation.json"
IDENTITY = ("checkpoint_sha256", "calibration_sha256", "input_size", "mean", "std")
"""Fields of an engine's card that make it another network."""

Entry = dict[str, Any]


def read(path: Path) -> dict[str, Entry]:
    """By variant, what is known of the checkpoint at `path`; nothing where nobody evaluated it.

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


def belongs(entry: Mapping[str, Any], engine: Mapping[str, Any]) -> bool:
    """Whether the entry was measured on the weights of the engine with this card (as JSON)."""
    return all(name in engine and entry.get(name) == engine[name] for name in IDENTITY)


def write(path: Path, found: Mapping[str, Entry]) -> Path:
    """Put the entries beside the checkpoint; those of other variants stay, unless they are of other weights."""
    place = files.beside(path, SUFFIX)
    shas = {entry["checkpoint_sha256"] for entry in found.values()}
    kept = {}
    with suppress(files.CheckpointError):  # what is damaged is written anew
        kept = {name: entry for name, entry in read(path).items() if entry.get("checkpoint_sha256") in shas}
    files.write(place, (json.dumps(kept | dict(found), indent=1) + "\n").encode())
    return place

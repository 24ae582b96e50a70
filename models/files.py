"""Files of a checkpoint's family: where they lie, reading, atomic writing, and the cache of what can be made again.

The cache is `~/.cache/precision-service` (or under XDG_CACHE_HOME). Imports nothing of this project.
"""

import hashlib
import json
import logging
import os
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).parent / "weights"
ARTIFACT_SUFFIX = ".int8.safetensors"
"""How the name of an INT8 artifact ends."""
BUNDLED = WEIGHTS / "resnet18_cifar10.safetensors"
SUFFIXES = (ARTIFACT_SUFFIX, ".safetensors", ".pth.tar", ".pth", ".pt", ".ckpt")
"""What may follow the name that a checkpoint shares with the files derived from it; a name may have dots itself."""


class CheckpointError(Exception):
    """Weights, or something derived from them, are missing, damaged or do not belong together."""


def default_path() -> Path:
    """The checkpoint to use when nobody names one: CHECKPOINT, else the bundled one."""
    return Path(os.environ.get("CHECKPOINT") or BUNDLED)


def beside(path: Path, suffix: str) -> Path:
    """The file derived from the checkpoint `path` with that suffix: `NAME.int8.json` for `.int8.json`."""
    known = next((known for known in SUFFIXES if path.name.endswith(known)), path.suffix)
    return path.with_name(path.name.removesuffix(known) + suffix)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def write(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    partial.replace(path)


def read(path: Path) -> bytes:
    """The bytes of a file of the checkpoint's family, or a CheckpointError that says what to do."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing: restore it (`git checkout -- models/weights` for the bundled one), "
            "or name another checkpoint with --checkpoint or CHECKPOINT"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def place(kind: str, suffix: str, **depends_on: Any) -> Path:
    """Where the file of that kind lies that was made from exactly this; what differs has another name."""
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:32]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "precision-service" / f"{kind}-{key}{suffix}"


def store(path: Path, data: bytes) -> None:
    """Keep a file where that is possible; where it is not, the next start makes it again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, data)
    except OSError as error:
        logger.warning("%s cannot be kept (%s): it will be made again at every start", path, error)

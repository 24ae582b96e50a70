"""A checkpoint and the files derived from it: their names, reading, atomic writing, and a cache.

The cache is `~/.cache/precision-service`, or `precision-service` under XDG_CACHE_HOME. Imports nothing of this project.
"""

import hashlib
import json
import logging
import os
import zipfile
from pathlib import Path
from typing import Any

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).parent / "weights"
ARTIFACT_SUFFIX = ".int8.safetensors"
"""The end of an INT8 artifact's name."""
BUNDLED = WEIGHTS / "resnet18_cifar10.safetensors"
SUFFIXES = (ARTIFACT_SUFFIX, ".safetensors", ".pth.tar", ".pth", ".pt", ".ckpt")
"""Endings that are not part of the name that a checkpoint shares with its derived files; that name may have dots."""


BROKEN_NPZ = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)
"""The errors of reading an array from a .npz that is missing, damaged or another one."""


class CheckpointError(Exception):
    """Weights or files derived from them are missing, damaged, or do not belong together."""


def default_path() -> Path:
    """Return the checkpoint to use unless a caller names one: CHECKPOINT, else the bundled one."""
    return Path(os.environ.get("CHECKPOINT") or BUNDLED)


def beside(path: Path, suffix: str) -> Path:
    """Return the place of the file derived from the checkpoint `path`: `NAME.int8.json` for the suffix `.int8.json`."""
    known = next((known for known in SUFFIXES if path.name.endswith(known)), path.suffix)
    return path.with_name(path.name.removesuffix(known) + suffix)


def sha256(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader sees the old file or the whole new one."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    partial.replace(path)


def read(path: Path) -> bytes:
    """Return the bytes of a file.

    Raises:
        CheckpointError: it is missing or cannot be read; says what to do.
    """
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
    """Return the place in the cache of a file of this kind; its name is a hash of everything that it depends on."""
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:32]
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "precision-service" / f"{kind}-{key}{suffix}"


def store(path: Path, data: bytes) -> None:
    """Write a file to the cache; log a warning if that is impossible, since the next start can make it again."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write(path, data)
    except OSError as error:
        logger.warning("%s cannot be kept (%s): it will be made again at every start", path, error)

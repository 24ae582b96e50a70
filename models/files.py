"""A checkpoint and the files derived from it: their names, reading, atomic writing, and a cache.

The cache is `~/.cache/precision-service`, or `precision-service` under XDG_CACHE_HOME. It saves work; nothing needs it.
Imports nothing of this project.
"""

import errno
import functools
import hashlib
import json
import logging
import os
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory, TemporaryFile
from typing import Any

logger = logging.getLogger(__name__)

WEIGHTS = Path(__file__).parent / "weights"
ARTIFACT_SUFFIX = ".int8.safetensors"
"""The end of an INT8 artifact's name."""
BUNDLED = WEIGHTS / "resnet18_cifar10.safetensors"
SUFFIXES = (ARTIFACT_SUFFIX, ".safetensors", ".pth.tar", ".pth", ".pt", ".ckpt", ".bin")
"""Endings that are not part of the name that a checkpoint shares with its derived files; that name may have dots."""


BROKEN_NPZ = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)
"""The errors of reading an array from a .npz that is missing, damaged or another one."""


class CheckpointError(Exception):
    """Weights or files derived from them are missing, damaged, or do not belong together."""


def default_path() -> Path:
    """Return the checkpoint to use unless a caller names one: CHECKPOINT, else the bundled one."""
    return Path(os.environ.get("CHECKPOINT") or BUNDLED)


def resolve(path: Path) -> Path:
    """Return the checkpoint that a path names: the file itself, or the one .safetensors in a prepared folder.

    INT8 artifacts beside a checkpoint are ignored.

    Raises:
        CheckpointError: the folder has none, or several.
    """
    if not path.is_dir():
        return path
    found = sorted(place for place in path.glob("*.safetensors") if not place.name.startswith("."))
    checkpoints = [place for place in found if not place.name.endswith(ARTIFACT_SUFFIX)] or found
    if len(checkpoints) != 1:
        names = ", ".join(place.name for place in checkpoints[:5]) or "none"
        raise CheckpointError(f"{path}: expected a folder with one .safetensors file, found {names}; name the file")
    return checkpoints[0]


def beside(path: Path, suffix: str) -> Path:
    """Return the place of the file derived from the checkpoint `path`: `NAME.int8.json` for the suffix `.int8.json`."""
    path = resolve(path)
    known = next((known for known in SUFFIXES if path.name.endswith(known)), path.suffix)
    return path.with_name(path.name.removesuffix(known) + suffix)


def sha256(data: bytes) -> str:
    """Return the SHA-256 in hexadecimal digits."""
    return hashlib.sha256(data).hexdigest()


def write(path: Path, data: bytes) -> None:
    """Write a file atomically: a reader sees the old file or the whole new one.

    Raises:
        OSError: the file cannot be written. Then the old one stays, and nothing lies beside it.
    """
    write_all({path: data})


def write_all(contents: Mapping[Path, bytes]) -> None:
    """Write files that belong together, and the folders that they need: every file is complete before one is replaced.

    Raises:
        OSError: one cannot be written. Then every old file stays, and nothing lies beside them.
    """
    partials = {path: path.with_name(f"{path.name}.{os.getpid()}.partial") for path in contents}
    try:
        for path, partial in partials.items():
            path.parent.mkdir(parents=True, exist_ok=True)
            if path.is_dir():
                raise IsADirectoryError(errno.EISDIR, "A folder is in the place of the file", str(path))
            with partial.open("wb") as file:
                file.write(contents[path])
                os.fsync(file.fileno())
        for path, partial in partials.items():
            partial.replace(path)
    finally:
        for partial in partials.values():
            with suppress(OSError):  # after a success it is not there any more
                partial.unlink()


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


def data_root() -> Path:
    """Return the folder of CIFAR-10 unless a caller names one: `CIFAR10_DIR`, else `~/.cache/cifar10`, else `data`.

    The last is for a user without a home directory.
    """
    try:
        return Path(os.environ.get("CIFAR10_DIR") or Path.home() / ".cache" / "cifar10")
    except RuntimeError:
        return Path("data")


def cache_folder() -> Path | None:
    """Return the folder of the cache; None if neither XDG_CACHE_HOME nor a home directory gives it a place."""
    try:
        root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    except RuntimeError:  # no HOME, and the user has no entry in passwd: a container with any uid
        return None
    return root / "precision-service"


def place(kind: str, suffix: str, **depends_on: Any) -> Path | None:
    """Return the place in the cache of a file of this kind, None without a cache.

    Its name is a hash of everything that the file depends on.
    """
    key = hashlib.sha256(json.dumps(depends_on, sort_keys=True).encode()).hexdigest()[:32]
    folder = cache_folder()
    return folder / f"{kind}-{key}{suffix}" if folder else None


def store(path: Path | None, data: bytes) -> None:
    """Write a file to the cache. Without a cache (None), or if it cannot be written, warn once and go on without it."""
    if path is None:
        warn_once("there is no home directory to keep them in")
        return
    try:
        write(path, data)
    except OSError as error:
        warn_once(f"{path.parent} cannot be written: {error.strerror}")


@contextmanager
def cache_of_some_kind() -> Iterator[None]:
    """Give this process, and those that it starts, a cache: the usual one, or a folder that ends with the block."""
    if _can_be_written(cache_folder()):
        yield
        return
    try:
        substitute = TemporaryDirectory(prefix="precision-service-")
    except OSError:  # no folder at all can be written
        yield
        return
    with substitute as folder:
        warn_once("no cache can be written")
        os.environ["XDG_CACHE_HOME"] = folder
        yield


def _can_be_written(folder: Path | None) -> bool:
    if folder is None:
        return False
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            return True
    except OSError:
        return False


@functools.cache
def warn_once(reason: str) -> None:
    """Log, once in this process for each reason, that nothing is cached and what to do."""
    logger.warning(
        "calibration and reference logits will be made again at every start (%s); "
        "XDG_CACHE_HOME can name a folder to keep them in", reason,
    )  # fmt: skip

"""Reference logits: those of the plain torchvision network in FP32 on the bundled sample, kept beside a checkpoint."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import checkpoint, cifar10, files
from models.card import Preparation
from models.engines.base import EngineInfo
from models.topology import Input

SUFFIX = ".sample.npz"
BUNDLED_INPUT = Input()
UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)


class SelfTestFailed(Exception):
    """The engine disagrees with the stored FP32 logits, or there are none for its checkpoint."""


def reference(path: Path | None, sha256: str, taken: Input = BUNDLED_INPUT) -> NDArray[np.float32]:
    """`[300, 10]` stored logits of the plain FP32 network on the bundled sample, for the checkpoint with this SHA-256.

    Raises:
        SelfTestFailed: there are none beside the checkpoint `path` (None: `files.default_path()`).
    """
    place = files.beside(path or files.default_path(), SUFFIX)
    again = "run `python -m models.sample --checkpoint FILE` to store those of this checkpoint"
    try:
        found, stored, logits = _unpacked(place.read_bytes())
    except FileNotFoundError:
        raise SelfTestFailed(f"{place} is missing: the self-test needs reference logits; {again}") from None
    except UNREADABLE as error:
        raise SelfTestFailed(f"{place} cannot be read ({error}); {again}") from error
    if found != sha256:
        raise SelfTestFailed(f"{place} belongs to the checkpoint {found[:12]}, not to {sha256[:12]}; {again}")
    if stored != taken:
        raise SelfTestFailed(f"{place} is of images as {stored}, not as {taken}; {again}")
    return logits


def _unpacked(data: bytes) -> tuple[str, Input, NDArray[np.float32]]:
    """The checkpoint's SHA-256, what images it took, and the logits, as `models.sample` packed them."""
    with np.load(io.BytesIO(data)) as content:
        taken = Input.of(json.loads(str(content["input"]))) if "input" in content else BUNDLED_INPUT
        return str(content["checkpoint_sha256"]), taken, np.asarray(content["logits"], np.float32)


def made_reference(path: Path, info: EngineInfo, preparation: Preparation) -> NDArray[np.float32]:
    """What `reference` gives, for a checkpoint that came without: computed, and kept for the next start."""
    from models.oracle import packed_logits  # noqa: PLC0415 - brings torch, and most checkpoints need none of it

    images, _ = cifar10.sample()
    depends_on = {"input_size": info.input_size, "mean": info.mean, "std": info.std, "torch": info.torch}
    depends_on |= {"images": files.sha256(images.tobytes())}
    place = files.place("reference", ".npz", checkpoint=info.checkpoint_sha256, **depends_on)
    try:
        return _unpacked(place.read_bytes())[2]
    except UNREADABLE:
        data = packed_logits(*checkpoint.load(path, preparation), images)
    files.store(place, data)
    return _unpacked(data)[2]

"""Checkpoints: a safetensors file beside its card, verified by SHA-256 at every load. Nothing is ever unpickled.

A checkpoint is `NAME.safetensors` (the state dict of `models.resnet.resnet18`) and `NAME.json` (its card). What is
derived from it lies beside it: `NAME.int8.json` (calibration), `NAME.sample.npz` (its logits on the bundled sample).
The one in use is the bundled one unless an argument (`--checkpoint`) or the environment variable CHECKPOINT names
another. Imports no torch.
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models import cifar10

if TYPE_CHECKING:
    from torch import nn

WEIGHTS = Path(__file__).parent / "weights"
ARTIFACT_SUFFIX = ".int8.safetensors"
"""How the name of an INT8 artifact ends."""
BUNDLED = WEIGHTS / "resnet18_cifar10.safetensors"

State = dict[str, NDArray[np.float32]]
"""A state dict as arrays, keyed as torch's."""


class CheckpointError(Exception):
    """Weights, or something derived from them, are missing, damaged or do not belong together."""


@dataclass(frozen=True)
class Card:
    """Where a checkpoint comes from and how good it is."""

    command: str
    recipe: dict[str, Any]
    seed: int
    epochs: int
    hardware: str
    training_seconds: int
    test_accuracy: float
    """Top-1 (0 to 1) of the plain FP32 network on the `test_images` first official test images."""
    test_images: int
    torch: str
    date: str
    """ISO 8601, UTC."""
    architecture: str = "torchvision ResNet18, 3x3 stride-1 stem, no max-pool"
    started_from: dict[str, Any] | None = None
    """The card of the checkpoint that the training went on from."""
    classes: tuple[str, ...] = cifar10.CLASSES
    mean: tuple[float, ...] = cifar10.MEAN
    std: tuple[float, ...] = cifar10.STD
    sha256: str = field(default="", kw_only=True)
    bytes: int = field(default=0, kw_only=True)


def default_path() -> Path:
    """The checkpoint to use when nobody names one: CHECKPOINT, else the bundled one."""
    return Path(os.environ.get("CHECKPOINT") or BUNDLED)


def beside(path: Path, suffix: str) -> Path:
    """The file derived from the checkpoint `path` with that suffix: `NAME.int8.json` for `.int8.json`."""
    return path.with_name(path.name.partition(".")[0] + suffix)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def save(net: nn.Module, path: Path, card: Card) -> Card:
    """Write `net` to `path` and its card beside it; gives the card completed with the file's SHA-256 and size."""
    from safetensors.numpy import save as serialize  # noqa: PLC0415 - not needed to read a card

    data = serialize({name: tensor.detach().cpu().contiguous().numpy() for name, tensor in net.state_dict().items()})
    card = replace(card, sha256=sha256(data), bytes=len(data))
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, data)
    write(beside(path, ".json"), (json.dumps(asdict(card), indent=2) + "\n").encode())
    return card


def write(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    partial = path.with_name(path.name + ".partial")
    partial.write_bytes(data)
    partial.replace(path)


def load(path: Path | None = None) -> tuple[State, Card]:
    """The state dict at `path` (None: `default_path()`) and its card.

    Raises:
        CheckpointError: the file or its card is missing, the SHA-256 differs, or it is no safetensors file.
    """
    path = path or default_path()
    card = read_card(path)
    return tensors(verified(path, card.sha256), path), card


def read_card(path: Path | None = None) -> Card:
    """The card beside the checkpoint `path` (None: `default_path()`).

    Raises:
        CheckpointError: it is missing or is no card.
    """
    place = beside(path or default_path(), ".json")
    known = {f.name for f in fields(Card)}
    try:
        content: dict[str, Any] = json.loads(read(place))
        values: dict[str, Any] = {
            key: tuple(v) if isinstance(v, list) else v for key, v in content.items() if key in known
        }
        card = Card(**values)
    except (ValueError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{place} is not a model card ({error}); restore it together with its checkpoint"
        ) from error
    if not card.sha256:
        raise CheckpointError(f"{place} is not a model card (no sha256); restore it together with its checkpoint")
    return card


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


def verified(path: Path, expected: str) -> bytes:
    """The bytes of `path`, whose SHA-256 must be `expected`."""
    data = read(path)
    if (found := sha256(data)) != expected:
        raise CheckpointError(
            f"{path} ({len(data):,} bytes) is damaged or is not the checkpoint of {beside(path, '.json').name}: "
            f"SHA-256 {found}, expected {expected}; restore both files from the same release"
        )
    return data


def tensors(data: bytes, path: Path) -> State:
    """The arrays of a safetensors file's content."""
    from safetensors import SafetensorError  # noqa: PLC0415 - not needed to read a card
    from safetensors.numpy import load as deserialize  # noqa: PLC0415

    try:
        return deserialize(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file ({error}); restore it") from error


def half_precision_bytes(state: State) -> int:
    """The size of the safetensors file that the same state dict makes in float16."""
    from safetensors.numpy import save as serialize  # noqa: PLC0415 - not needed to read a card

    return len(serialize({name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in state.items()}))

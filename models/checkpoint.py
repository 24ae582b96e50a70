"""Checkpoints: weights and their card, verified by SHA-256 at every load. No pickled code runs.

A checkpoint is `NAME.safetensors`, or a file of `torch.save` with any other suffix, which `models.pickled` converts in
a process of its own. Its card is `NAME.json`, which only the bundled checkpoint must have. Derived files lie beside it:
`NAME.int8.json` (calibration), `NAME.sample.npz` (reference logits), `NAME.evaluation.json` (the record of an
evaluation). The bundled checkpoint is used unless an argument (`--checkpoint`) or the environment variable CHECKPOINT
names another. Imports no torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as serialize

from models import cifar10, files, naming
from models.card import AS_IT_SAYS, Card, Preparation, read_card
from models.files import ARTIFACT_SUFFIX, CheckpointError, beside, default_path, read, resolve, sha256, write_all
from models.naming import Found
from models.topology import Architecture, Input, topology

if TYPE_CHECKING:
    from torch import Tensor, nn

DTYPES: dict[str, DTypeLike] = {
    "F64": np.float64, "F32": np.float32, "F16": np.float16, "BOOL": np.bool_,
    "I64": np.int64, "I32": np.int32, "I16": np.int16, "I8": np.int8,
    "U64": np.uint64, "U32": np.uint32, "U16": np.uint16, "U8": np.uint8,
}  # fmt: skip
"""numpy's dtype for each of safetensors' that numpy has."""
CONVERTER = "models.pickled"
"""The module that converts a file of `torch.save`, run as a process."""

CONVERTED = 2
"""The version of the converter, so that files that an older one left in the cache are not read."""
State = dict[str, NDArray[np.float32]]
"""A state dict of arrays, with torch's names."""


def save(net: nn.Module, path: Path, card: Card) -> Card:
    """Write `net` to `path` and its card beside it; return the card, completed with the file's SHA-256 and size.

    Raises:
        OSError: the files cannot be written. Then neither is changed.
    """
    data = serialize({name: array(tensor) for name, tensor in net.state_dict().items()})
    bundled = topology(Architecture(18, "cifar", False, len(card.labels or cifar10.CLASSES)), Input())
    card = replace(card, classes=card.classes or cifar10.CLASSES, sha256=sha256(data), bytes=len(data))
    card = card.completed(bundled)
    write_all({path: data, beside(path, ".json"): (json.dumps(asdict(card), indent=2) + "\n").encode()})
    return card


def load(path: Path | None = None, preparation: Preparation = AS_IT_SAYS) -> tuple[State, Card]:
    """Return the state dict at `path` (None: `default_path()`) and its card.

    Raises:
        CheckpointError: the file or the bundled card is missing, the SHA-256 differs, the file holds no tensors, or it
            is an INT8 artifact.
    """
    path = resolve(path or default_path())
    card = read_card(path, preparation)
    if path.name.endswith(ARTIFACT_SUFFIX):
        raise CheckpointError(f"{path} is an INT8 artifact: of the variants, it has int8 only")
    data = verified(path, card.sha256)
    content, place = _as_safetensors(data, path, card.sha256)
    found = _named(place, content, _arrays(content, place))
    return found.tensors, _described(card, data, found.or_named_by(_config(path)))


def _described(card: Card, data: bytes, found: Found) -> Card:
    """Return the card with what the file tells; the card's own names of the classes win."""
    return replace(card, bytes=len(data), classes=card.classes or found.classes, taken_from=found.taken_from or None)


def _config(path: Path) -> object:
    """Return the content of the `config.json` that Hugging Face and timm save beside weights; None if unreadable."""
    try:
        return json.loads(path.with_name("config.json").read_bytes())
    except (OSError, ValueError):
        return None


def inspect(path: Path, preparation: Preparation = AS_IT_SAYS) -> Card:
    """Verify the checkpoint at `path` and return its card, completed with what its network tells.

    A file of `torch.save` is converted, so that whoever loads it afterwards finds the converted file in the cache.

    Raises:
        CheckpointError: see `load`; or the tensors are no ResNet; or the card does not fit them.
    """
    path = resolve(path)
    card = read_card(path, preparation)
    if path.name.endswith(ARTIFACT_SUFFIX):
        return card
    data = verified(path, card.sha256)
    content, place = _as_safetensors(data, path, card.sha256)
    found = _named(place, content, {name: Shaped(tuple(entry["shape"])) for name, entry in _header(content, place)})
    card = _described(card, data, found.or_named_by(_config(path)))
    try:
        return card.completed(card.plan({name: tensor.shape for name, tensor in found.tensors.items()}))
    except CheckpointError as error:
        raise CheckpointError(f"{path}: {error}") from error


def verified(path: Path, expected: str) -> bytes:
    """Return the bytes of `path`.

    Raises:
        CheckpointError: their SHA-256 is not `expected`.
    """
    data = read(path)
    if (found := sha256(data)) != expected:
        raise CheckpointError(
            f"{path} ({len(data):,} bytes) is damaged or is not the checkpoint of {beside(path, '.json').name}: "
            f"SHA-256 {found}, expected {expected}; restore both files from the same release"
        )
    return data


@dataclass(frozen=True)
class Shaped:
    """A tensor whose numbers were not read."""

    shape: tuple[int, ...]


def _as_safetensors(data: bytes, path: Path, sha256: str) -> tuple[bytes, Path]:
    """Return a checkpoint's content as that of a safetensors file, and the file that has it.

    Raises:
        CheckpointError: the content holds no tensors, or one that is sparse, quantized, complex or without values.
    """
    if path.suffix == ".safetensors":
        return data, path
    place = _place(sha256)
    if place:
        with suppress(CheckpointError):  # not cached yet, or damaged
            content = read(place)
            _header(content, place)
            return content, place
    content = _converted(data, path)
    files.store(place, content)
    return content, place or path


def _header(content: bytes, path: Path) -> list[tuple[str, dict[str, Any]]]:
    """Return name and description of each tensor in the content of a safetensors file."""
    try:
        return list(deserialize(content))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file ({error}); restore it") from error


def _arrays(content: bytes, path: Path) -> State:
    """Return the arrays: floating-point ones as float32, each contiguous in its own memory."""
    return {name: _array(entry, f"{path}: {name}") for name, entry in _header(content, path)}


def _named(path: Path, content: bytes, tensors: Mapping[str, Any]) -> Found:
    """Return the tensors with torchvision's names, and what the file's metadata say of them."""
    header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
    return naming.find(tensors, f"{path} is no checkpoint").described_by(header.get("__metadata__", {}))


def _array(entry: dict[str, Any], what: str) -> NDArray[Any]:
    """Return the array of an entry of safetensors. A bfloat16 is the upper half of a float32."""
    dtype, data = entry["dtype"], entry["data"]
    if dtype == "BF16":
        flat = (np.frombuffer(data, np.uint16).astype(np.uint32) << 16).view(np.float32)
    elif dtype in DTYPES:
        flat = np.frombuffer(data, DTYPES[dtype])
    else:
        raise CheckpointError(f"{what} is no dense tensor of real numbers (it is {dtype})")
    is_floating = np.issubdtype(flat.dtype, np.floating)
    return (flat.astype(np.float32, copy=False) if is_floating else flat).reshape(entry["shape"])


def _place(sha256: str) -> Path | None:
    """Return the place in the cache of the converted file with this SHA-256."""
    return files.place("converted", ".safetensors", checkpoint=sha256, format=CONVERTED)


def _converted(data: bytes, path: Path) -> bytes:
    """Return the content of a file of `torch.save` as the content of a safetensors file.

    A process of its own reads it, so that the memory that a whole training state takes ends with that process.
    """
    command = [sys.executable, "-m", CONVERTER, str(path)]
    done = subprocess.run(command, input=data, capture_output=True, check=False)  # noqa: S603 - our own module
    if done.returncode:
        raise CheckpointError(done.stderr.decode(errors="replace").strip() or f"{path}: the converter was killed")
    return done.stdout


def array(tensor: Tensor) -> NDArray[Any]:
    """Return a copy of the tensor's values in C order, whatever its strides: channels-last, transposed, expanded."""
    copy: NDArray[Any] = np.array(tensor.detach().cpu().resolve_neg().numpy(), order="C")
    return copy


def half_precision_bytes(state: State) -> int:
    """Return the size of the safetensors file with the state dict in float16."""
    return len(serialize({name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in state.items()}))

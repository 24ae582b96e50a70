"""Checkpoints: weights and their card, verified by SHA-256 at every load. Only tensors are unpickled.

A checkpoint is `NAME.safetensors`, or `NAME.pt` (a pickled state dict, which `models.pickled` converts in a process of
its own). Its card is `NAME.json`, which only the bundled checkpoint must have. Derived files lie beside it:
`NAME.int8.json` (calibration), `NAME.sample.npz` (reference logits), `NAME.evaluation.json` (the record of an
evaluation). The bundled checkpoint is used unless an argument (`--checkpoint`) or the environment variable CHECKPOINT
names another. Imports no torch.
"""

from __future__ import annotations

import json
import subprocess
import sys
from contextlib import suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray
from safetensors import SafetensorError, deserialize
from safetensors.numpy import save as serialize

from models import cifar10, files, needs
from models.card import AS_IT_SAYS, Card, Preparation, read_card
from models.files import ARTIFACT_SUFFIX, CheckpointError, beside, default_path, read, resolve, sha256, write_all
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
    return tensors(data, path, card.sha256), replace(card, bytes=len(data))


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
    state, card = load(path, preparation)
    try:
        return card.completed(card.plan({name: array.shape for name, array in state.items()}))
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


def tensors(data: bytes, path: Path, sha256: str) -> State:
    """Return the arrays of a checkpoint's content: floating-point ones as float32, each contiguous in its own memory.

    Raises:
        CheckpointError: the content holds no tensors, or one that is sparse, quantized, complex or without values.
    """
    if path.suffix == ".safetensors":
        return _safetensors(data, path)
    if place := _place(sha256):
        with suppress(CheckpointError):  # not cached yet, or damaged
            return _safetensors(read(place), place)
    content = _converted(data, path)
    files.store(place, content)
    return _safetensors(content, path)


def _safetensors(data: bytes, path: Path) -> State:
    try:
        entries = deserialize(data)  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file ({error}); restore it") from error
    return {name: _array(entry, f"{path}: {name}") for name, entry in entries}


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
    return files.place("converted", ".safetensors", checkpoint=sha256)


def _require_torch(path: Path) -> None:
    if sentence := needs.torch_or_sentence(f"{path}, which is no .safetensors file,"):
        raise CheckpointError(sentence)


def _converted(data: bytes, path: Path) -> bytes:
    """Return the content of a file of `torch.save` as the content of a safetensors file.

    torch reads it in a process of its own, so that the memory that torch takes ends with that process.
    """
    _require_torch(path)
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

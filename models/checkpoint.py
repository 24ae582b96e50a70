"""Checkpoints: weights and their card, verified by SHA-256 at every load. Only tensors are unpickled.

A checkpoint is `NAME.safetensors`, or `NAME.pt` (a pickled state dict, read with `weights_only`). Its card is
`NAME.json`, which only the bundled checkpoint must have. Derived files lie beside it: `NAME.int8.json` (calibration),
`NAME.sample.npz` (reference logits), `NAME.evaluation.json` (the record of an evaluation). The bundled checkpoint is
used unless an argument (`--checkpoint`) or the environment variable CHECKPOINT names another. torch is imported only
when weights are read.
"""

from __future__ import annotations

import io
import json
import pickle
import re
import struct
import warnings
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save as serialize

from models.card import AS_IT_SAYS, Card, Preparation, read_card
from models.files import ARTIFACT_SUFFIX, CheckpointError, beside, default_path, read, sha256, write_all
from models.topology import STEMS, Input, detect

if TYPE_CHECKING:
    from torch import Tensor, nn

NOT_TORCHS = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError,
    AssertionError, struct.error,
)  # fmt: skip
"""The errors of torch.load for files that are damaged or of another kind."""

State = dict[str, NDArray[np.float32]]
"""A state dict of arrays, with torch's names."""


def save(net: nn.Module, path: Path, card: Card) -> Card:
    """Write `net` to `path` and its card beside it; return the card, completed with the file's SHA-256 and size.

    Raises:
        OSError: the files cannot be written. Then neither is changed.
    """
    data = serialize({name: array(tensor) for name, tensor in net.state_dict().items()})
    inputs = Input()
    card = replace(
        card, architecture=STEMS["cifar"], input_size=inputs.side, mean=inputs.mean, std=inputs.std,
        sha256=sha256(data), bytes=len(data),
    )  # fmt: skip
    write_all({path: data, beside(path, ".json"): (json.dumps(asdict(card), indent=2) + "\n").encode()})
    return card


def load(path: Path | None = None, preparation: Preparation = AS_IT_SAYS) -> tuple[State, Card]:
    """Return the state dict at `path` (None: `default_path()`) and its card.

    Raises:
        CheckpointError: the file or the bundled card is missing, the SHA-256 differs, the file holds no tensors, or it
            is an INT8 artifact.
    """
    path = path or default_path()
    card = read_card(path, preparation)
    if path.name.endswith(ARTIFACT_SUFFIX):
        raise CheckpointError(f"{path} is an INT8 artifact: of the variants, it has int8 only")
    data = verified(path, card.sha256)
    return tensors(data, path), replace(card, bytes=len(data))


def inspect(path: Path, preparation: Preparation = AS_IT_SAYS) -> Card:
    """Verify the checkpoint at `path` and return its card, completed as far as possible without torch.

    Raises:
        CheckpointError: see `load`; or the tensors of a safetensors file are no ResNet18 for ten classes.
    """
    card = read_card(path, preparation)
    if path.name.endswith(ARTIFACT_SUFFIX):
        return card
    card = replace(card, bytes=len(verified(path, card.sha256)))
    if path.suffix != ".safetensors":
        return card
    try:
        with safe_open(path, "np") as file:
            stem = detect({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
        inputs = card.input_for(stem)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file ({error}); restore it") from error
    except (ValueError, CheckpointError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return replace(card, architecture=STEMS[stem], input_size=inputs.side, mean=inputs.mean, std=inputs.std)


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


def tensors(data: bytes, path: Path) -> State:
    """Return the arrays of a checkpoint's content: floating-point ones as float32, each contiguous in its own memory.

    Raises:
        CheckpointError: the content holds no tensors, or one that is sparse, quantized, complex or without values.
    """
    named = _safetensors(data, path) if path.suffix == ".safetensors" else _state_dict(data, path)
    return {name: _dense(tensor, f"{path}: {name}") for name, tensor in named.items()}


def _dense(tensor: Tensor, what: str) -> NDArray[Any]:
    try:
        if tensor.is_complex():
            raise TypeError(f"it is {tensor.dtype}")
        return array(tensor.float() if tensor.is_floating_point() else tensor)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"{what} is no dense tensor of real numbers ({str(error).splitlines()[0]})") from error


def array(tensor: Tensor) -> NDArray[Any]:
    """Return a copy of the tensor's values in C order, whatever its strides: channels-last, transposed, expanded."""
    copy: NDArray[Any] = np.array(tensor.detach().cpu().resolve_neg().numpy(), order="C")
    return copy


def _safetensors(data: bytes, path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load as deserialize  # noqa: PLC0415

    try:
        return deserialize(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file ({error}); restore it") from error


def _state_dict(data: bytes, path: Path) -> dict[str, Tensor]:
    """Read a file of `torch.save`: a state dict, alone or under `state_dict` or `model`, also of a DataParallel."""
    import torch  # noqa: PLC0415 - a process that reads only cards does without torch

    expected = "expected what torch.save(net.state_dict(), FILE) writes, or NAME.safetensors"
    try:
        with warnings.catch_warnings(action="ignore"):  # on the pickle's protocol: the file is read or refused anyway
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except NOT_TORCHS as error:
        raise CheckpointError(f"{path} is no state dict ({_reason(error)}); {expected}") from error
    if isinstance(content, dict):
        content = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointError(f"{path} is no state dict (it holds other things than tensors); {expected}")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _reason(error: Exception) -> str:
    """Return why torch cannot read a file, without its advice to switch `weights_only` off, which could run code."""
    if forbidden := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it holds {forbidden[1]}, which is no tensor"
    if "weights_only" in str(error):
        return "it is damaged, or holds other things than tensors"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def half_precision_bytes(state: State) -> int:
    """Return the size of the safetensors file with the state dict in float16."""
    return len(serialize({name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in state.items()}))

"""Convert a file of `torch.save` to safetensors: `python -m models.pickled NAME < FILE > FILE.safetensors`.

Only tensors are unpickled. An error is a sentence about NAME on stderr, with exit code 1. `models.checkpoint` runs this
as a process.
"""

import io
import pickle
import re
import struct
import sys
import warnings
from typing import Any

import torch
from numpy.typing import NDArray
from safetensors.numpy import save
from torch import Tensor

from models.checkpoint import array
from models.files import CheckpointError

NOT_TORCHS = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError,
    AssertionError, struct.error,
)  # fmt: skip
"""The errors of torch.load for files that are damaged or of another kind."""


def converted(data: bytes, name: str) -> bytes:
    """Return the tensors of a state dict as the content of a safetensors file, floating-point ones as float32.

    The state dict is alone in the file, or under `state_dict` or `model`; it may be a DataParallel's.

    Raises:
        CheckpointError: the file holds no tensors, or one that is sparse, quantized, complex or without values.
    """
    return save({key: _dense(tensor, f"{name}: {key}") for key, tensor in _state_dict(data, name).items()})


def _state_dict(data: bytes, name: str) -> dict[str, Tensor]:
    expected = "expected what torch.save(net.state_dict(), FILE) writes, or NAME.safetensors"
    try:
        with warnings.catch_warnings(action="ignore"):  # on the pickle's protocol: the file is read or refused anyway
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except NOT_TORCHS as error:
        raise CheckpointError(f"{name} is no state dict ({_reason(error)}); {expected}") from error
    if isinstance(content, dict):
        content = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not all(isinstance(value, Tensor) for value in content.values()):
        raise CheckpointError(f"{name} is no state dict (it holds other things than tensors); {expected}")
    return {key.removeprefix("module."): tensor for key, tensor in content.items()}


def _reason(error: Exception) -> str:
    """Return why torch cannot read a file, without its advice to switch `weights_only` off, which could run code."""
    if forbidden := re.search(r"GLOBAL (\S+)", str(error)):
        return f"it holds {forbidden[1]}, which is no tensor"
    if "weights_only" in str(error):
        return "it is damaged, or holds other things than tensors"
    return str(error).splitlines()[0] if str(error) else type(error).__name__


def _dense(tensor: Tensor, what: str) -> NDArray[Any]:
    try:
        if tensor.is_complex():
            raise TypeError(f"it is {tensor.dtype}")
        return array(tensor.float() if tensor.is_floating_point() else tensor)
    except (RuntimeError, TypeError) as error:
        raise CheckpointError(f"{what} is no dense tensor of real numbers ({str(error).splitlines()[0]})") from error


def main(name: str) -> None:
    try:
        content = converted(sys.stdin.buffer.read(), name)
    except CheckpointError as error:
        sys.exit(str(error))
    sys.stdout.buffer.write(content)


if __name__ == "__main__":
    main(sys.argv[1])

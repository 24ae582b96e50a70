"""The INT8 weights and scales of a network, made from FP32 weights and calibrated ranges or read from an artifact.

Imports no torch.

A real value is `scale * integer`, without a zero point. Activations are uint8, since a ReLU precedes them; weights are
int8, symmetric, with one scale per output channel. Only the output of a shortcut convolution can be negative: an
`offset` moves it into uint8.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from models import files
from models.card import architecture_of
from models.engines.network import FoldedLayer, mean_and_scale
from models.files import CheckpointError
from models.topology import Input, Network, Spec, topology

Range = tuple[float, float]
FORMAT = "precision-service int8 4"
"""Marks an INT8 artifact of this version, which names its architecture."""
READABLE = ("precision-service int8 3", FORMAT)
"""The versions that are read. Artifacts of version 3 are of a ResNet18."""
LEVELS = 256
"""Of an 8-bit activation."""
LARGEST_SUM = 2**31 - 1
"""Of a 32-bit accumulator."""
LARGEST_KERNEL = 2**20
"""The most weights of the convolution that stands for average and linear layer."""
FULL_LIMIT = 127
"""Largest weight with VNNI."""
SAFE_LIMIT = 64
"""Largest weight on a CPU without VNNI, which sums pairs of products in 16 bits: 2 x 255 x 64 = 32,640."""


@dataclass(frozen=True)
class QuantizedLayer:
    """A convolution or the linear layer: `y = conv(x, weight) * weight_scale + bias`, then `y / output_scale + offset`.

    The stem reads raw pixels: red, green and blue, padded with the rounded mean. A fourth channel is 1 on the padding
    and 0 inside; its weights correct the rounding of the mean.
    """

    spec: Spec
    weight: NDArray[Any]
    """int8, shaped as in FoldedLayer; the stem has a fourth input channel. float32 for a layer that stays in floating
    point: it reads its input before rounding, and its `weight_scale` is 1."""
    weight_scale: NDArray[np.float32]
    """`[out] float32`."""
    bias: NDArray[np.float32]
    """`[out] float32`, in real units."""
    output_scale: float
    """0 for the head, whose output stays float32."""
    offset: int
    """Added to the output so that it is not negative."""
    levels: int = LEVELS
    """How many integers the output may have, from 0."""

    @property
    def is_floating(self) -> bool:
        """Return whether the layer stays in floating point."""
        return bool(self.weight.dtype != np.int8)


def padding_pixels(inputs: Input) -> tuple[int, ...]:
    """Return the pixel that the normalisation turns into zero, rounded: red, green, blue."""
    return tuple(int(value) for value in mean_and_scale(inputs)[0].round().flat)


def quantize(network: Network[FoldedLayer], ranges: Mapping[str, Range], limit: int) -> Network[QuantizedLayer]:
    """Quantize the weights, and turn the calibrated range of each convolution's output into a scale and an offset.

    Args:
        network: the FP32 network.
        ranges: `(low, high)` of each convolution's output by layer name, see `models.calibration.Calibration`.
        limit: largest magnitude of an integer weight, FULL_LIMIT or SAFE_LIMIT.

    Raises:
        CheckpointError: a layer has no range.
    """

    if missing := [layer.spec.name for layer in network if layer is not network.head and layer.spec.name not in ranges]:
        raise CheckpointError(f"the calibration has no range for {missing[0]}; run `python -m models.quantize` again")

    def quantized(layer: FoldedLayer) -> QuantizedLayer:
        low, high = ranges.get(layer.spec.name, (0.0, 0.0))
        scale = (high - low) / 255
        offset = round(-low / scale) if low < 0 else 0
        if layer is network.stem:
            integers, step = rounded(layer.weight * mean_and_scale(network.input)[1], limit)
            weight, bias = framed(integers, step, layer.bias, network.input)
            return QuantizedLayer(layer.spec, weight, step, bias, scale, offset)
        return QuantizedLayer(layer.spec, *rounded(layer.weight, limit), layer.bias, scale, offset)

    return network.map(quantized)


def narrowed(network: Network[QuantizedLayer]) -> Network[QuantizedLayer]:
    """Return the network with integer weights of at most SAFE_LIMIT, for a CPU without VNNI."""

    integers = np.arange(256, dtype=np.uint8).view(np.int8)  # a weight's bits are its place in the table
    table = np.rint(integers * np.float64(SAFE_LIMIT / FULL_LIMIT)).astype(np.int8)

    def narrow(layer: QuantizedLayer) -> QuantizedLayer:
        if layer.is_floating or max(-int(layer.weight.min()), int(layer.weight.max())) <= SAFE_LIMIT:
            return layer
        weight = table.take(layer.weight.view(np.uint8))
        return replace(layer, weight=weight, weight_scale=layer.weight_scale * (FULL_LIMIT / SAFE_LIMIT))

    return network.map(narrow)


def rounded(weight: NDArray[np.float32], limit: int) -> tuple[NDArray[np.int8], NDArray[np.float32]]:
    """Return integer weights and their scale per output channel."""
    largest = np.abs(weight).max(axis=tuple(range(1, weight.ndim)))
    scale = np.maximum(largest, np.float32(1e-12)) / np.float32(limit)
    shaped = scale.reshape(-1, *[1] * (weight.ndim - 1))
    return np.rint(weight / shaped).clip(-limit, limit).astype(np.int8), scale


def framed(
    weight: NDArray[Any], scale: NDArray[np.float32], bias: NDArray[np.float32], inputs: Input
) -> tuple[NDArray[Any], NDArray[np.float32]]:
    """Return the stem's weight with a fourth channel, and its bias with the mean in it, so that it reads framed pixels.

    Args:
        weight: `[out, 3, k, k]` for pixels minus their mean, int8 or float32.
        scale: `[out] float32`, by which the weights are multiplied.
        bias: `[out] float32`.
        inputs: the images, which say the mean.
    """
    step, exact = scale.astype(np.float64)[:, None, None, None], mean_and_scale(inputs)[0].astype(np.float64)
    real = weight * step
    short = exact - np.array(padding_pixels(inputs)).reshape(3, 1, 1)
    padding = (real * short).sum(1, keepdims=True) / step
    if weight.dtype == np.int8:
        largest = np.abs(weight.astype(np.int16)).max()
        padding = np.rint(padding).clip(-largest, largest)
    framed_bias = (bias - (real * exact).sum((1, 2, 3))).astype(np.float32)
    return np.concatenate([weight, padding.astype(weight.dtype)], 1), framed_bias


def has_integer_head(head: QuantizedLayer) -> bool:
    """Return whether average and linear layer can run as one convolution in integers, see `head_kernel`.

    Of a large network the kernel would have a hundred million weights, more than all of its layers, and its sums might
    not fit into 32 bits.
    """
    if head.is_floating:
        return False
    weights = head.weight.astype(np.int64)
    most = int(max(weights.clip(min=0).sum(1).max(), -weights.clip(max=0).sum(1).min()))
    positions = head.spec.side**2
    return 255 * positions * most <= LARGEST_SUM and positions * head.weight.size <= LARGEST_KERNEL


def head_kernel(head: QuantizedLayer) -> NDArray[np.int8]:
    """Return the average and the linear layer as the weight of one convolution: `[classes, in, side, side] int8`.

    All positions have the same weights, so its sums are `side**2` times too large; the caller divides the scale.
    """
    side = head.spec.side
    return np.tile(head.weight[:, :, None, None], (1, 1, side, side))


class Frame:
    """The stem's input: pixels framed by its padding, channels last, with the fourth channel of QuantizedLayer.

    It keeps the buffer of the largest batch so far and rewrites only the inside of the frame.
    """

    def __init__(self, inputs: Input, width: int) -> None:
        self.side = inputs.side + 2 * width
        self._pad = np.array([*padding_pixels(inputs), 1], np.uint8)
        self._inside = slice(width, width + inputs.side)
        self._buffer = self._frame = self._empty(1)

    @property
    def nbytes(self) -> int:
        """Bytes of the last batch."""
        return self._frame.nbytes

    def _empty(self, size: int) -> NDArray[np.uint8]:
        frame = np.tile(self._pad, (size, self.side, self.side, 1))
        frame[:, self._inside, self._inside, 3] = 0
        return frame

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return `[N, side, side, 4]` from `[N, 3, S, S]`. The next call overwrites it; equal N give the same array."""
        if len(pixels) > len(self._buffer):
            self._buffer = self._empty(len(pixels))
        if len(pixels) != len(self._frame):
            self._frame = self._buffer[: len(pixels)]
        self._frame[:, self._inside, self._inside, :3] = pixels.transpose(0, 2, 3, 1)
        return self._frame


def serialize(
    network: Network[QuantizedLayer],
    checkpoint_sha256: str,
    calibration_sha256: str,
    classes: Sequence[str],
) -> bytes:
    """Return the INT8 artifact: a safetensors file with the hashes of its sources and its own SHA-256."""
    arrays = {f"{layer.spec.name}.{part}": getattr(layer, part) for layer in network for part in PARTS}
    outputs = {layer.spec.name: _output(layer) for layer in network}
    about = {
        "format": FORMAT,
        "checkpoint_sha256": checkpoint_sha256,
        "calibration_sha256": calibration_sha256,
        "architecture": json.dumps(asdict(network.architecture)),
        "input": json.dumps(network.input.as_json()),
        "outputs": json.dumps(outputs),
        "classes": json.dumps(classes),
    }
    return save(arrays, about | {"sha256": _digest(arrays, about)})


def _output(layer: QuantizedLayer) -> tuple[float, int] | tuple[float, int, int]:
    """Return what an artifact says of an output: scale, offset, and levels if they are not LEVELS."""
    found = layer.output_scale, layer.offset
    return found if layer.levels == LEVELS else (*found, layer.levels)


PARTS = ("weight", "weight_scale", "bias")
"""The arrays of a layer."""


def deserialize(path: Path) -> tuple[Network[QuantizedLayer], dict[str, str]]:
    """Return the network of an INT8 artifact, and the artifact's metadata.

    Raises:
        CheckpointError: the file is missing, damaged, or no INT8 artifact.
    """
    files.read(path)
    try:
        with safe_open(path, "np") as file:
            about = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 - not a mapping
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file ({error}); write it again") from error
    expected = about.pop("sha256", "")
    if about.get("format") not in READABLE or _digest(arrays, about) != expected:
        raise CheckpointError(
            f"{path} is damaged or no INT8 artifact; write it again: `python -m models.quantize --help`"
        )
    outputs = json.loads(about["outputs"])
    network = topology(architecture_of(about), Input.of(json.loads(about["input"]))).map(
        lambda spec: QuantizedLayer(spec, *(arrays[f"{spec.name}.{part}"] for part in PARTS), *outputs[spec.name])
    )
    return network, about


def _digest(arrays: Mapping[str, NDArray[Any]], about: Mapping[str, str]) -> str:
    digest = hashlib.sha256(json.dumps(dict(sorted(about.items()))).encode())
    for name in sorted(arrays):
        dtype = f"torch.{arrays[name].dtype}"  # the format has torch's names
        digest.update(f"{name} {dtype} {list(arrays[name].shape)}".encode())
        digest.update(arrays[name].tobytes())
    return digest.hexdigest()

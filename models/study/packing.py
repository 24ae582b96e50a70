"""The size of a quantized network with its weights packed: two weights of 4 bits in a byte. Imports no torch."""

import json

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import load, save

from models.engines.quantized import QuantizedLayer
from models.topology import Network

LARGEST_NIBBLE = 7
"""The largest magnitude of a weight that is packed into 4 bits."""


def packed(network: Network[QuantizedLayer]) -> bytes:
    """Return a safetensors file of the network's weights, scales and biases.

    Weights of at most 7 in magnitude take 4 bits, other integers 8, and those of layers in floating point 32.
    """
    arrays: dict[str, NDArray[np.generic]] = {}
    outputs = {}
    for layer in network:
        name = layer.spec.name
        has_nibbles = not layer.is_floating and np.abs(layer.weight.astype(np.int16)).max() <= LARGEST_NIBBLE
        arrays[f"{name}.weight"] = nibbles(layer.weight) if has_nibbles else layer.weight
        arrays |= {f"{name}.weight_scale": layer.weight_scale, f"{name}.bias": layer.bias}
        outputs[name] = (layer.output_scale, layer.offset, layer.levels)
    return save(arrays, {"outputs": json.dumps(outputs)})


def unpacked_weights(content: bytes, network: Network[QuantizedLayer]) -> dict[str, NDArray[np.generic]]:
    """Return the weights of a file of `packed` by name; `network` tells their shapes."""
    arrays = load(content)
    found = {}
    for layer in network:
        weight = arrays[f"{layer.spec.name}.weight"]
        is_packed = weight.dtype == np.uint8
        found[layer.spec.name] = from_nibbles(weight, layer.weight.shape) if is_packed else weight
    return found


def nibbles(weight: NDArray[np.int8]) -> NDArray[np.uint8]:
    """Return weights of -8 to 7 as bytes of two, the first in the lower half."""
    flat: NDArray[np.uint8] = np.zeros(weight.size + weight.size % 2, np.uint8)
    flat[: weight.size] = weight.ravel().astype(np.uint8) & np.uint8(15)
    both: NDArray[np.uint8] = flat[::2] | (flat[1::2] << np.uint8(4))
    return both


def from_nibbles(content: NDArray[np.uint8], shape: tuple[int, ...]) -> NDArray[np.int8]:
    """Return the weights that `nibbles` packed."""
    flat = np.stack([content & 15, content >> 4], 1).ravel()[: int(np.prod(shape))]
    signed: NDArray[np.int8] = (flat ^ 8).astype(np.int8)
    return (signed - np.int8(8)).reshape(shape)

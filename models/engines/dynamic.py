"""Dynamic INT8, the classic recipe for any network: the linear layer in INT8, the convolutions in FP32.

This is what `torch.ao.quantization.quantize_dynamic` (deprecated) makes of a ResNet, in which it skips every
convolution. The range of the linear layer's input is measured while a batch runs: here one scale per image instead of
one per batch, so that no answer depends on the other images of its batch. Imports no torch.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from models import checkpoint
from models.checkpoint import State
from models.engines import openvino
from models.engines.building import Order, Origin, describe
from models.engines.cpu import CpuEngine
from models.engines.function import ArrayFunction
from models.engines.network import FoldedLayer, fold
from models.engines.on_cpu import resident
from models.engines.quantized import FULL_LIMIT, rounded
from models.topology import Network

SMALLEST = np.float32(1e-12)
"""Least maximum of an image's features, so that a scale is never 0."""


def build(order: Order) -> CpuEngine:
    """Build the network with OpenVINO's FP32 convolutions and one INT8 linear layer of numpy."""
    state, card = checkpoint.load(order.path, order.preparation)
    network = fold(state, card)
    function = with_integer_head(openvino.features(network, order.threads), network)
    origin = Origin(card, serialized_bytes(state))
    weights = sum(layer.weight.size for layer in network)
    note = f"only the linear layer is INT8: {network.head.weight.size:,} of {weights / 1e6:.1f} million weights"
    found = function.convolution_precision
    info = describe(order, network, origin, resident(function), "openvino", note, convolution_precision=found)
    return CpuEngine(order.variant, info, function)


def with_integer_head(features: ArrayFunction, network: Network[FoldedLayer]) -> ArrayFunction:
    """Return `[N, 3, S, S] uint8` to `[N, classes] float32`: `features`, then the network's linear layer in INT8.

    Args:
        features: gives `[N, C] float32`, none negative: averages over positions after a ReLU.
        network: whose head is quantized.
    """
    weight, scale = rounded(network.head.weight, FULL_LIMIT)
    columns, bias = np.ascontiguousarray(weight.T, np.int32), network.head.bias

    def forward(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        x = features.forward(pixels)
        step = np.maximum(x.max(1, keepdims=True), SMALLEST) / np.float32(255)
        sums = np.rint(x / step).astype(np.int32) @ columns  # of 32 bits, in which 2048 products of u8 and s8 fit
        logits: NDArray[np.float32] = sums.astype(np.float32) * scale * step + bias
        return logits

    return replace(
        features,
        forward=forward,
        parameter_bytes=features.parameter_bytes + columns.nbytes + bias.nbytes,
        buffer_bytes=features.buffer_bytes + scale.nbytes,
    )


def serialized_bytes(state: State) -> int:
    """Return the size of the safetensors file with the linear layer's weight in int8 and its scales beside it."""
    weight, scale = rounded(state["fc.weight"], FULL_LIMIT)
    return len(save(state | {"fc.weight": weight, "fc.weight_scale": scale}))

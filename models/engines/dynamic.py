"""Dynamic INT8, the classic recipe for any network: the linear layer in INT8, the convolutions in FP32.

This is what `torch.ao.quantization.quantize_dynamic` (deprecated) makes of a ResNet, in which it skips every
convolution. The range of the linear layer's input is measured while a batch runs: here one scale per image instead of
one per batch, so that no answer depends on the other images of its batch.
"""

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from common import machine
from models import checkpoint, measure
from models.checkpoint import State
from models.engines import openvino
from models.engines.building import Order, Origin, Resident, describe
from models.engines.cpu import CpuEngine
from models.engines.function import ArrayFunction
from models.engines.network import FoldedLayer, fold
from models.engines.quantized import FULL_LIMIT, SAFE_LIMIT, rounded
from models.topology import Network
from models.variants import VariantUnavailable

SMALLEST = 1e-12
"""Least maximum of an image's features, so that a scale is never 0."""


def build(order: Order) -> CpuEngine:
    """Build the network with OpenVINO's FP32 convolutions and one INT8 linear layer of torch.

    Raises:
        VariantUnavailable: torch was built without oneDNN, which has the INT8 linear layer.
    """
    if not torch.backends.mkldnn.is_available():
        raise VariantUnavailable(f"{order.variant.name}: this build of torch lacks oneDNN")
    state, card = checkpoint.load(order.path, order.preparation)
    network = fold(state, card)
    limit = FULL_LIMIT if machine.has_vnni() else SAFE_LIMIT
    features = openvino.features(network, order.threads)
    function = with_integer_head(features, network, limit)
    resident = Resident(function.parameter_bytes, function.buffer_bytes)
    origin = Origin(card.sha256, serialized_bytes(state))
    note = "only the linear layer is INT8: 5,120 of 11.2 million weights"
    found = features.convolution_precision
    info = describe(order, network, origin, resident, "openvino", note, convolution_precision=found)
    return CpuEngine(order.variant, info, function)


def with_integer_head(features: ArrayFunction, network: Network[FoldedLayer], limit: int) -> ArrayFunction:
    """Return `[N, 3, S, S] uint8` to `[N, 10] float32`: `features`, then the network's linear layer in INT8.

    Args:
        features: gives `[N, 512] float32`, none negative: averages over positions after a ReLU.
        network: whose head is quantized.
        limit: largest magnitude of an integer weight.
    """
    classify = torch.ops.onednn.qlinear_pointwise.default
    integers, scale = rounded(network.head.weight, limit)
    weight = torch.ops.onednn.qlinear_prepack(integers, [1, integers.shape[1]])
    zero, bias = torch.zeros(len(scale), dtype=torch.int32), network.head.bias

    @torch.inference_mode()
    def forward(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        x = torch.from_numpy(features.forward(pixels))
        step = x.amax(1, keepdim=True).clamp_(min=SMALLEST).div_(255)
        codes = x.div_(step).round_().to(torch.uint8)
        sums: Tensor = classify(codes, 1.0, 0, weight, scale, zero, None, 1.0, 0, torch.float32, "none", [], "")
        logits: NDArray[np.float32] = sums.mul_(step).add_(bias).numpy()
        return logits

    return replace(
        features,
        forward=forward,
        parameter_bytes=features.parameter_bytes + measure.nbytes([weight, bias]),
        buffer_bytes=features.buffer_bytes + measure.nbytes([scale, zero]),
    )


def serialized_bytes(state: State) -> int:
    """Return the size of the safetensors file with the linear layer's weight in int8 and its scales beside it."""
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    tensors["fc.weight"], tensors["fc.weight_scale"] = rounded(tensors["fc.weight"], FULL_LIMIT)
    return len(save(tensors))

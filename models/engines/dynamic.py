"""Dynamic INT8, the classic recipe for any network: only the linear layer, its input quantized on the fly.

This is what `torch.ao.quantization.quantize_dynamic` (deprecated) makes of a ResNet: it skips every convolution. Here
on oneDNN's operator, and with one scale per image rather than per batch, so that no answer depends on its neighbours.
"""

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import save
from torch import Tensor

from models import measure
from models.checkpoint import State
from models.engines.built import Built
from models.engines.network import FoldedLayer
from models.engines.quantized import rounded
from models.topology import Network


def build(features: Built, network: Network[FoldedLayer], limit: int) -> Built:
    """`[N, 3, H, W] uint8` to `[N, 10] float32`, from a backend's `[N, 512] float32` features."""
    classify = torch.ops.onednn.qlinear_pointwise.default
    integers, scale = rounded(network.head.weight, limit)
    weight = torch.ops.onednn.qlinear_prepack(integers, [1, integers.shape[1]])
    zero, bias = torch.zeros(len(scale), dtype=torch.int32), network.head.bias

    @torch.inference_mode()
    def forward(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        x = torch.from_numpy(features.forward(pixels))  # averages after a ReLU: never negative
        step = x.amax(1, keepdim=True).clamp_(min=1e-12).div_(255)
        codes = x.div_(step).round_().to(torch.uint8)
        sums: Tensor = classify(codes, 1.0, 0, weight, scale, zero, None, 1.0, 0, torch.float32, "none", [], "")
        logits: NDArray[np.float32] = sums.mul_(step).add_(bias).numpy()
        return logits

    return features._replace(
        forward=forward,
        parameter_bytes=features.parameter_bytes + measure.nbytes([weight, bias]),
        buffer_bytes=features.buffer_bytes + measure.nbytes([scale, zero]),
    )


def serialized_bytes(state: State) -> int:
    """The size of the safetensors file with the linear layer's weight in int8, its scales beside it."""
    tensors = {name: torch.from_numpy(array) for name, array in state.items()}
    tensors["fc.weight"], tensors["fc.weight_scale"] = rounded(tensors["fc.weight"], 127)
    return len(save(tensors))

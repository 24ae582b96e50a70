"""The floating-point network on torch's own operators, on any device."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from models.engines.network import FoldedLayer, assemble
from models.engines.tensors import Layer, ResidualLayer, TensorFunction, max_pool, mean_and_scale
from models.topology import Network

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
"""The torch dtype of the weights and activations, by the dtype of a row of VARIANTS."""


def convolve_relu(weight: Tensor, bias: Tensor, stride: int, padding: int) -> Layer:
    """Return `x -> relu(conv(x))`."""
    return lambda x: F.relu_(F.conv2d(x, weight, bias, stride, padding))


def convolve_add_relu(weight: Tensor, bias: Tensor, stride: int, padding: int) -> ResidualLayer:
    """Return `x, accumulator -> relu(conv(x) + accumulator)`."""
    return lambda x, accumulator: F.relu_(F.conv2d(x, weight, bias, stride, padding).add_(accumulator))


def eager(
    network: Network[FoldedLayer],
    device: torch.device,
    dtype: torch.dtype,
    plain: Callable[[Tensor, Tensor, int, int], Layer] = convolve_relu,
    residual: Callable[[Tensor, Tensor, int, int], ResidualLayer] = convolve_add_relu,
) -> TensorFunction:
    """Return the network on `device`, channels-last throughout.

    Args:
        network: the layers.
        device: where the weights go.
        dtype: of weights and activations; the normalisation runs in float32.
        plain: builds a convolution with ReLU from weight, bias, stride and padding.
        residual: the same for a convolution whose output is added to a second input before its ReLU.
    """
    mean, scale = mean_and_scale(network.input, device)
    weights: list[Tensor] = []

    def place(layer: FoldedLayer) -> tuple[Tensor, Tensor]:
        layout = torch.channels_last if layer.weight.ndim == 4 else torch.contiguous_format
        weight = torch.from_numpy(layer.weight).to(device, dtype, memory_format=layout)
        bias = torch.from_numpy(layer.bias).to(device, dtype)
        weights.extend((weight, bias))
        return weight, bias

    def geometry(layer: FoldedLayer) -> tuple[int, int]:
        return layer.spec.stride, layer.weight.shape[2] // 2

    def shortcut(layer: FoldedLayer) -> Layer:
        (weight, bias), (stride, padding) = place(layer), geometry(layer)
        return lambda x: F.conv2d(x, weight, bias, stride, padding)

    features = assemble(
        network,
        lambda layer: plain(*place(layer), *geometry(layer)) if layer.spec.relu else shortcut(layer),
        lambda layer: residual(*place(layer), *geometry(layer)),
        max_pool,
    )
    head_weight, head_bias = place(network.head)

    def forward(pixels: Tensor) -> Tensor:
        x = pixels.to(torch.float32, memory_format=torch.channels_last).sub_(mean).mul_(scale).to(dtype)
        return F.linear(features(x).mean((2, 3)), head_weight, head_bias).float()

    return TensorFunction(forward, weights)

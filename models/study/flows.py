"""The layers of the FP32 and of the quantized network in torch, one by one: exact values beside rounded ones."""

from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from models import cifar10
from models.engines.network import FoldedLayer, mean_and_scale
from models.engines.quantized import Frame, QuantizedLayer
from models.topology import Network

AnyLayer = FoldedLayer | QuantizedLayer


class Flow(NamedTuple):
    """An output on its way to the next layer."""

    exact: Tensor
    """`[N, C, H, W] float32`, before rounding."""
    rounded: Tensor
    """The same after rounding, in real units. In an FP32 network it is `exact`."""


def start(network: Network[Any], pixels: cifar10.Images) -> Flow:
    """Return what the stem of the network reads for `[N, 3, S, S] uint8` pixels."""
    if isinstance(network.stem, QuantizedLayer):
        frame = Frame(network.input, network.stem.spec.shape[2] // 2)(pixels)
        x = torch.from_numpy(frame.transpose(0, 3, 1, 2).astype(np.float32))
    else:
        mean, scale = mean_and_scale(network.input)
        x = torch.from_numpy((pixels.astype(np.float32) - mean) * scale)
    x = x.contiguous(memory_format=torch.channels_last)
    return Flow(x, x)


def weight_of(layer: AnyLayer) -> Tensor:
    """Return the layer's weight in real units."""
    if isinstance(layer, FoldedLayer):
        return torch.from_numpy(layer.weight)
    scale = layer.weight_scale.reshape(-1, *[1] * (layer.weight.ndim - 1))
    return torch.from_numpy(layer.weight.astype(np.float32) * scale)


def read(layer: AnyLayer, x: Flow) -> Tensor:
    """Return the input that the layer reads."""
    return x.rounded if isinstance(layer, QuantizedLayer) and not layer.is_floating else x.exact


def convolved(layer: AnyLayer, x: Flow) -> Tensor:
    """Return the convolution with its bias, before addition and ReLU. A quantized stem reads a frame, unpadded."""
    weight = weight_of(layer)
    is_framed = weight.shape[1] != layer.spec.shape[1]
    padding = 0 if is_framed else layer.spec.shape[2] // 2
    return F.conv2d(read(layer, x), weight, torch.from_numpy(layer.bias), layer.spec.stride, padding)


def finished(layer: AnyLayer, y: Tensor, added: Flow | None = None) -> Flow:
    """Return the layer's output from its convolution: addition, ReLU, rounding."""
    if added is not None:
        y = y + read(layer, added)
    if layer.spec.relu or added is not None:
        y = F.relu(y)
    return Flow(y, rounded(layer, y) if isinstance(layer, QuantizedLayer) else y)


def rounded(layer: QuantizedLayer, y: Tensor) -> Tensor:
    """Return the output after rounding and clipping to the layer's levels."""
    low = -layer.offset
    return (y / layer.output_scale).round_().clamp_(low, low + layer.levels - 1).mul_(layer.output_scale)


def pooled(x: Flow) -> Flow:
    """Return the 3x3 max-pool of the output."""
    return Flow(F.max_pool2d(x.exact, 3, 2, 1), F.max_pool2d(x.rounded, 3, 2, 1))


def logits(network: Network[Any], x: Flow) -> Tensor:
    """Return the `[N, classes]` logits of the last block's output."""
    head = network.head
    return F.linear(read(head, x).mean((2, 3)), weight_of(head), torch.from_numpy(head.bias))

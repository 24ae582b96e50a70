"""The floating-point network on a GPU: a table of ways to run its layers."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.engines import floating
from models.engines.network import FoldedLayer
from models.engines.tensors import Layer, ResidualLayer, TensorFunction
from models.topology import Network
from models.variants import GPU_BACKENDS

RECOMPILE_LIMIT = 64
"""Batch sizes that torch.compile may compile; each is compiled by itself, and the default limit is eight."""


def build(backend: str, network: Network[FoldedLayer], device: torch.device, dtype: torch.dtype) -> TensorFunction:
    """Return the network as the row `backend` of BUILDERS runs it.

    Raises:
        ValueError: there is no such row.
    """
    if backend not in BUILDERS:
        raise ValueError(f"the GPU's backend must be one of {', '.join(GPU_BACKENDS)}, not {backend!r}")
    return BUILDERS[backend](network, device, dtype)


def _fused(network: Network[FoldedLayer], device: torch.device, dtype: torch.dtype) -> TensorFunction:
    """Return the network with bias, residual addition and ReLU inside cuDNN's convolutions."""
    return floating.eager(network, device, dtype, plain=_convolve_relu, residual=_convolve_add_relu)


def _convolve_relu(weight: Tensor, bias: Tensor, stride: int, padding: int) -> Layer:
    strides, paddings = [stride] * 2, [padding] * 2
    return lambda x: torch.cudnn_convolution_relu(x, weight, bias, strides, paddings, [1, 1], 1)


def _convolve_add_relu(weight: Tensor, bias: Tensor, stride: int, padding: int) -> ResidualLayer:
    strides, paddings = [stride] * 2, [padding] * 2
    return lambda x, accumulator: torch.cudnn_convolution_add_relu(
        x, weight, accumulator, 1.0, bias, strides, paddings, [1, 1], 1
    )


def _compiled(network: Network[FoldedLayer], device: torch.device, dtype: torch.dtype) -> TensorFunction:
    """Return the network with cuDNN's convolutions and Inductor's kernels for the rest; needs a C compiler at start."""
    import torch._dynamo  # noqa: PLC0415 - takes seconds, and the other rows do not need it

    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    forward, weights = floating.eager(network, device, dtype)
    return TensorFunction(torch.compile(forward, dynamic=False, fullgraph=True), weights)


BUILDERS: dict[str, Callable[[Network[FoldedLayer], torch.device, torch.dtype], TensorFunction]] = {
    "cudnn": floating.eager,
    "cudnn-fused": _fused,
    "inductor": _compiled,
}

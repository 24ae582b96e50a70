"""The floating-point network on a GPU: a table of ways to run the same layers."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.engines import floating
from models.engines.network import FoldedLayer, Layer, ResidualLayer
from models.topology import Network
from models.variants import DEFAULT_GPU_BACKEND, GPU_BACKENDS

Built = tuple[Layer, list[Tensor]]
"""`[N, 3, S, S] uint8` on the device to `[N, 10] float32`, and the weights it holds."""
RECOMPILE_LIMIT = 64
"""Of torch.compile, which gives up after eight otherwise: batch sizes are compiled one by one."""


def build(backend: str | None, network: Network[FoldedLayer], device: torch.device, dtype: torch.dtype) -> Built:
    """The network run by a row of BUILDERS; None takes DEFAULT_GPU_BACKEND.

    Raises:
        ValueError: no such row.
    """
    backend = backend or DEFAULT_GPU_BACKEND
    if backend not in BUILDERS:
        raise ValueError(f"the GPU's backend must be one of {', '.join(GPU_BACKENDS)}, not {backend!r}")
    return BUILDERS[backend](network, device, dtype)


def _fused(network: Network[FoldedLayer], device: torch.device, dtype: torch.dtype) -> Built:
    """Bias, residual addition and ReLU inside cuDNN's convolution."""
    return floating.eager(network, device, dtype, plain=_convolve_relu, residual=_convolve_add_relu)


def _convolve_relu(weight: Tensor, bias: Tensor, stride: int, padding: int) -> Layer:
    strides, paddings = [stride] * 2, [padding] * 2
    return lambda x: torch.cudnn_convolution_relu(x, weight, bias, strides, paddings, [1, 1], 1)


def _convolve_add_relu(weight: Tensor, bias: Tensor, stride: int, padding: int) -> ResidualLayer:
    strides, paddings = [stride] * 2, [padding] * 2
    return lambda x, accumulator: torch.cudnn_convolution_add_relu(
        x, weight, accumulator, 1.0, bias, strides, paddings, [1, 1], 1
    )


def _compiled(network: Network[FoldedLayer], device: torch.device, dtype: torch.dtype) -> Built:
    """cuDNN's convolutions, everything else in kernels that Inductor generates; needs a C compiler at start."""
    import torch._dynamo  # noqa: PLC0415 - seconds that the other rows do without

    torch._dynamo.config.recompile_limit = RECOMPILE_LIMIT
    forward, held = floating.eager(network, device, dtype)
    return torch.compile(forward, dynamic=False, fullgraph=True), held


BUILDERS: dict[str, Callable[[Network[FoldedLayer], torch.device, torch.dtype], Built]] = {
    "cudnn": floating.eager,
    "cudnn-fused": _fused,
    "inductor": _compiled,
}

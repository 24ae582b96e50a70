"""The floating-point network on a GPU: a table of ways to run its layers."""

from collections.abc import Callable

import torch
from torch import Tensor

from models.engines import floating
from models.engines.network import FoldedLayer
from models.engines.tensors import Layer, ResidualLayer, TensorFunction
from models.topology import Network
from models.variants import DEFAULT_GPU_BACKEND, GPU_BACKENDS

RECOMPILE_LIMIT = 64
"""Batch sizes that torch.compile may compile; each is compiled by itself, and the default limit is eight."""


FASTEST = {torch.float16: ("cudnn-fused", "cudnn"), torch.bfloat16: ("cudnn-fused", "cudnn")}
"""The backends of `auto`, the fastest first; other dtypes take `cudnn`.

On an H200 the fused convolutions take 0.6 of the time in float16 and 1.1 in float32 (docs/results/nvidia-h200.md).
Inductor is left out: it compiles at every start."""


def build(
    backend: str, network: Network[FoldedLayer], device: torch.device, dtype: torch.dtype
) -> tuple[str, TensorFunction]:
    """Return a row's name and the network as it runs it: the row `backend` of BUILDERS, or the best one for `auto`.

    Raises:
        ValueError: there is no such row.
    """
    if backend == DEFAULT_GPU_BACKEND:
        *faster, last = FASTEST.get(dtype, ("cudnn",))
        for name in faster:
            function = BUILDERS[name](network, device, dtype)
            if _runs(function, network.input.side, device):
                return name, function
        return last, BUILDERS[last](network, device, dtype)
    if backend not in BUILDERS:
        expected = ", ".join((DEFAULT_GPU_BACKEND, *GPU_BACKENDS))
        raise ValueError(f"the GPU's backend must be one of {expected}, not {backend!r}")
    return backend, BUILDERS[backend](network, device, dtype)


@torch.inference_mode()
def _runs(function: TensorFunction, side: int, device: torch.device) -> bool:
    """Return whether the function runs one image: cuDNN does not have every fused kernel for every GPU."""
    try:
        function.forward(torch.zeros((1, 3, side, side), dtype=torch.uint8, device=device)).cpu()
    except RuntimeError:
        return False
    return True


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

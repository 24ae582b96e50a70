"""The network's parts as torch has them, on any device: layers, normalisation, whole networks."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from models import measure_torch
from models.engines import network
from models.engines.function import ArrayForward, ArrayFunction
from models.topology import Input

Layer = Callable[[Tensor], Tensor]
ResidualLayer = Callable[[Tensor, Tensor], Tensor]
TensorForward = Callable[[Tensor], Tensor]
"""`[N, 3, S, S] uint8` on a device to `[N, classes] float32` on that device."""


class TensorFunction(NamedTuple):
    """A network on a device."""

    forward: TensorForward
    weights: list[Tensor]
    """Its weights and biases, as they lie on the device."""


def array_function(function: TensorFunction) -> ArrayFunction:
    """Return a network on the CPU as a function of arrays."""
    nbytes = measure_torch.nbytes(function.weights)
    return ArrayFunction(on_arrays(function.forward), nbytes, measure_torch.activation_peak)


def on_arrays(forward: TensorForward) -> ArrayForward:
    """Return `forward` as a function of arrays, which share their memory with its tensors."""

    @torch.inference_mode()
    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        array: NDArray[Any] = forward(torch.from_numpy(pixels)).numpy()
        return array

    return run


def max_pool(x: Tensor) -> Tensor:
    """Return the 3x3 max-pool, stride 2, padding 1, of `[N, C, H, W]`."""
    return F.max_pool2d(x, 3, 2, 1)


def mean_and_scale(inputs: Input, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return the `[3, 1, 1] float32` tensors of `models.engines.network.mean_and_scale` on a device."""
    mean, scale = (torch.from_numpy(array).to(device) for array in network.mean_and_scale(inputs))
    return mean, scale

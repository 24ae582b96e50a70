"""A whole network as one function, and the memory that it holds: of tensors on any device, of arrays on the CPU."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import measure

TensorForward = Callable[[Tensor], Tensor]
"""`[N, 3, S, S] uint8` on a device to `[N, 10] float32` on that device."""
ArrayForward = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""The same on the CPU, without tensors around the pixels: at batch 1 every wrapper costs time that shows."""


class TensorFunction(NamedTuple):
    """A network on a device."""

    forward: TensorForward
    weights: list[Tensor]
    """Its weights and biases, as they lie on the device."""


@dataclass(frozen=True)
class ArrayFunction:
    """A network on the CPU."""

    forward: ArrayForward
    parameter_bytes: int
    """Resident weights and biases, as packed for the backend."""
    buffer_bytes: int = 0
    """Resident constants that are not learnt."""
    convolution_precision: str = ""
    """The precision in which the convolutions run, see `EngineInfo`."""
    activation_peak: Callable[[Callable[[], object]], int] = measure.activation_peak
    """Returns the most bytes that a call of the function needs at once beyond the resident ones."""

    @classmethod
    def of(cls, forward: TensorForward, weights: Sequence[Tensor]) -> ArrayFunction:
        """Return the function that runs `forward` on the CPU."""
        return cls(on_arrays(forward), measure.nbytes(weights))

    def with_input(self, nbytes: Callable[[], int]) -> ArrayFunction:
        """Return the same function with `nbytes()` added to each peak: the size of an input buffer that it keeps."""
        measured = self.activation_peak
        return replace(self, activation_peak=lambda forward: measured(forward) + nbytes())


def on_arrays(forward: TensorForward) -> ArrayForward:
    """Return `forward` as a function of arrays, which share their memory with its tensors."""

    @torch.inference_mode()
    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        array: NDArray[Any] = forward(torch.from_numpy(pixels)).numpy()
        return array

    return run

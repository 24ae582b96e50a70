"""What a CPU backend makes of the layers, before it becomes an engine."""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import measure

Forward = Callable[[Tensor], Tensor]
"""`[N, 3, S, S] uint8` on the device to `[N, 10] float32` on the device."""
ArrayForward = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""The same on the CPU, where a batch of one feels every wrapper around its pixels."""


class Built(NamedTuple):
    """A network function and what it holds."""

    forward: ArrayForward
    parameter_bytes: int
    """Resident weights and biases, as packed for the backend."""
    buffer_bytes: int = 0
    """Resident constants that are not learnt."""
    activation_peak: Callable[[Callable[[], object]], int] = measure.activation_peak
    """Bytes that a call of the function needs at most at once beyond what is resident."""

    @classmethod
    def of(cls, forward: Forward, held: Sequence[Tensor], constants: Sequence[Tensor] = ()) -> "Built":
        """From the tensors that it holds, run by torch's operators."""
        return cls(on_arrays(forward), measure.nbytes(held), measure.nbytes(constants))

    def with_input(self, nbytes: Callable[[], int]) -> "Built":
        """The same, when a batch's pixels are copied into an array that is kept: its bytes are the batch's, too."""
        measured = self.activation_peak
        return self._replace(activation_peak=lambda forward: measured(forward) + nbytes())


def on_arrays(forward: Forward) -> ArrayForward:
    """The same function of arrays; they share their memory with the tensors."""

    @torch.inference_mode()
    def run(pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        array: NDArray[Any] = forward(torch.from_numpy(pixels)).numpy()
        return array

    return run

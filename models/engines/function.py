"""A whole network as one function on the CPU, and the memory that it holds. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

ArrayForward = Callable[[NDArray[np.uint8]], NDArray[np.float32]]
"""`[N, 3, S, S] uint8` to `[N, classes] float32`. No tensors wrap the pixels: at batch 1 their time shows."""


@dataclass(frozen=True)
class ArrayFunction:
    """A network on the CPU."""

    forward: ArrayForward
    parameter_bytes: int
    """Resident weights and biases, as packed for the backend."""
    activation_peak: Callable[[Callable[[], object]], int]
    """Returns the most bytes that a call of the function needs at once beyond the resident ones."""
    release: Callable[[], object] = lambda: None
    """Gives memory back that the function needed only to get ready for its batch sizes."""
    buffer_bytes: int = 0
    """Resident constants that are not learnt."""
    convolution_precision: str = ""
    """The precision in which the convolutions run, see `EngineInfo`."""
    slice: int | None = None
    """Images that run at once, where a larger batch runs as several such slices; None where every batch runs whole."""

    def shapes(self, batch_sizes: Iterable[int]) -> list[int]:
        """Return the numbers of images that run at once in batches of these sizes, in ascending order."""
        if self.slice is None:
            return sorted(set(batch_sizes))
        whole, rest = {min(size, self.slice) for size in batch_sizes}, {size % self.slice for size in batch_sizes}
        return sorted((whole | rest) - {0})

    def with_input(self, nbytes: Callable[[], int]) -> ArrayFunction:
        """Return the same function with `nbytes()` added to each peak: the size of an input buffer that it keeps."""
        measured = self.activation_peak
        return replace(self, activation_peak=lambda forward: measured(forward) + nbytes())

"""What a backend makes of the layers, before it becomes an engine."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

from torch import Tensor

from models import measure

Forward = Callable[[Tensor], Tensor]
"""`[N, 3, S, S] uint8` on the device to `[N, 10] float32` on the device."""


class Built(NamedTuple):
    """A network function and what it holds."""

    forward: Forward
    parameter_bytes: int
    """Resident weights and biases, as packed for the backend."""
    buffer_bytes: int = 0
    """Resident constants that are not learnt."""
    activation_peak: Callable[[Callable[[], object]], int] = measure.activation_peak
    """Bytes that a call of the function needs at most at once beyond what is resident."""

    @classmethod
    def of(cls, forward: Forward, held: Sequence[Tensor], constants: Sequence[Tensor] = ()) -> "Built":
        """From the tensors that it holds, run by torch's operators."""
        return cls(forward, measure.nbytes(held), measure.nbytes(constants))

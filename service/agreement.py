"""How far the logits of two variants agree on the same images."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True)
class Agreement:
    """One value per image."""

    same_class: list[bool]
    distance: list[float]
    """The largest |difference| of a logit."""

    @classmethod
    def of(cls, logits: NDArray[np.float32], reference: NDArray[np.float32]) -> "Agreement":
        """Compare two arrays of `[N, classes]` logits."""
        distance = np.abs(np.subtract(logits, reference, dtype=np.float64)).max(axis=1)
        return cls((logits.argmax(1) == reference.argmax(1)).tolist(), distance.tolist())

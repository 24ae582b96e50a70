"""Logits, and how far two sets of them are apart. Imports no torch."""

import math

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.floating]
"""`[N, C]`, one row per image."""


def agreement(exact: Logits, found: Logits) -> float:
    """Return the share (0 to 1) of images with the same top-1 class."""
    return float((exact.argmax(1) == found.argmax(1)).mean())


def sqnr(exact: Logits, found: Logits) -> float | None:
    """Return the signal-to-quantization-noise ratio in dB, the power of `exact` over that of the difference; or None.

    None means that there is no difference.
    """
    signal, noise = (float((x.astype(np.float64) ** 2).sum()) for x in (exact, exact.astype(np.float64) - found))
    if not noise:
        return None
    return 10 * math.log10(signal / noise) if signal else -math.inf

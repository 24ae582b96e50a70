"""Encoded pictures for tests."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image


def encode(pixels: NDArray[np.uint8], kind: str = "PNG", mode: str = "RGB", **options: object) -> bytes:
    """`[3, H, W] uint8` as an encoded image."""
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def solid(value: int, side: int = 32) -> NDArray[np.uint8]:
    """`[3, side, side] uint8`, every byte `value`."""
    return np.full((3, side, side), value, np.uint8)


def png(value: int) -> bytes:
    return encode(solid(value))

"""Inference requests of Triton's client."""

import base64

import numpy as np
import tritonclient.http as triton

from tests.service.pictures import solid

PIXELS = np.stack([solid(value) for value in (3, 4, 9)])
INFER = "/v2/models/resnet18-fp32/infer"


def images(pixels: np.ndarray, binary: bool = True) -> triton.InferInput:
    """`[N, 3, 32, 32] uint8` as an input."""
    tensor = triton.InferInput("images", list(pixels.shape), "UINT8")
    return tensor.set_data_from_numpy(pixels, binary_data=binary)


def encoded(parts: list[bytes], binary: bool = True) -> triton.InferInput:
    """Encoded images as an input."""
    tensor = triton.InferInput("images", [len(parts)], "BYTES")
    texts = parts if binary else [base64.b64encode(part) for part in parts]
    return tensor.set_data_from_numpy(np.array(texts, object), binary_data=binary)

"""The least time that an image can take: the network's multiply-accumulates at the best rate that this CPU reached.

The rates are measured on large matrix products and convolutions through oneDNN; the fastest call counts. The floor
assumes direct convolution: an algorithm with fewer multiplications (Winograd) could be faster than the fp32 floor.
"""

import time
from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from models.resnet import MACS_PER_IMAGE

SIDES = (512, 1024, 2048)
"""The sides of the square matrix products."""
CHANNELS = (64, 128, 256, 512)
"""The channels, in and out, of the 3x3 convolutions on 16 images of 16x16."""
IMAGES, SIDE = 16, 16
Work = tuple[int, Callable[[], object]]
"""A number of multiply-accumulates, and a call that executes them."""


def fp32() -> Iterator[Work]:
    """Yield matrix products, and convolutions with packed weights."""
    for side in SIDES:
        a, b = torch.rand(side, side), torch.rand(side, side)
        yield side**3, lambda a=a, b=b: a @ b  # type: ignore[misc]
    convolve = torch.ops.mkldnn._convolution_pointwise.default
    for count in CHANNELS:
        x = torch.rand(IMAGES, count, SIDE, SIDE).contiguous(memory_format=torch.channels_last)
        weight = torch.ops.mkldnn._reorder_convolution_weight(
            torch.rand(count, count, 3, 3), [1, 1], [1, 1], [1, 1], 1, tuple(x.shape)
        )
        yield (
            IMAGES * SIDE**2 * count**2 * 9,
            lambda x=x, w=weight: convolve(x, w, None, [1, 1], [1, 1], [1, 1], 1, "none", [], ""),  # type: ignore[misc]
        )


def int8() -> Iterator[Work]:
    """Yield linear layers and convolutions: uint8 by int8, uint8 out."""
    for side in SIDES:
        x = torch.randint(0, 256, (side, side), dtype=torch.uint8)
        yield side**3, _linear(x, torch.ops.onednn.qlinear_prepack(_weights(side, side), [side, side]))
    for count in CHANNELS:
        x = torch.randint(0, 256, (IMAGES, count, SIDE, SIDE), dtype=torch.uint8)
        yield IMAGES * SIDE**2 * count**2 * 9, _convolution(x.contiguous(memory_format=torch.channels_last))


def _weights(*shape: int) -> Tensor:
    return torch.randint(-127, 128, shape, dtype=torch.int8)


def _linear(x: Tensor, weight: Tensor) -> Callable[[], object]:
    scale, zero = torch.full((len(x),), 1e-5), torch.zeros(len(x), dtype=torch.int32)
    run = torch.ops.onednn.qlinear_pointwise.default
    return lambda: run(x, 1.0, 0, weight, scale, zero, None, 1.0, 0, torch.uint8, "none", [], "")


def _convolution(x: Tensor) -> Callable[[], object]:
    count, ones = x.shape[1], [1, 1]
    scale, zero = torch.full((count,), 1e-5), torch.zeros(count, dtype=torch.int32)
    weight = torch.ops.onednn.qconv_prepack(
        _weights(count, count, 3, 3), scale, 1.0, 0, ones, ones, ones, 1, list(x.shape)
    )
    run = torch.ops.onednn.qconv2d_pointwise.default
    return lambda: run(x, 1.0, 0, weight, scale, zero, None, ones, ones, ones, 1, 1.0, 0, torch.uint8, "none", [], "")


WORK = {"float32": fp32, "int8": int8}


@torch.inference_mode()
def seconds_per_image(dtype: str, threads: int) -> Callable[[], float]:
    """Return a function that runs all work of a dtype once and returns the seconds of an image at the best rate."""
    torch.set_num_threads(threads)
    work = list(WORK[dtype]())

    @torch.inference_mode()
    def measure() -> float:
        rates = []
        for count, run in work:
            began = time.perf_counter()
            run()
            rates.append(count / (time.perf_counter() - began))
        return MACS_PER_IMAGE / max(rates)

    return measure

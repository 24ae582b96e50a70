"""What the GPU can do at most: the measured rates of matrix products and copies, and the floor they imply."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from models.resnet import MACS_PER_IMAGE, PARAMETERS

SIDE = 8192
"""Of the square matrices."""
BYTES = 2**31
"""Of the copies on the device; a quarter of it between host and device."""
REPEATS = 9
WARM_UP = 3
FLOP_PER_IMAGE = 2 * MACS_PER_IMAGE
IMAGE_BYTES, LOGITS_BYTES = 3 * 32 * 32, 10 * 4
WIDTH = {"float32": 4, "tf32": 4, "float16": 2, "bfloat16": 2}
"""Bytes of a weight."""


@dataclass(frozen=True)
class Ceilings:
    """Measured on random data, medians of REPEATS."""

    flop_per_second: dict[str, float]
    """By dtype, as in models.variants: matrix products of SIDE."""
    copy_bytes_per_second: float
    """On the device, bytes read plus bytes written."""
    to_device_bytes_per_second: float
    """From pinned memory."""
    from_device_bytes_per_second: float

    def floor_seconds(self, dtype: str, batch_size: int) -> float:
        """What direct convolution takes at least: all multiplications at the rate of matrix products, or each weight
        read, each pixel read and each logit written once at the rate of copies, whichever takes longer. Winograd's
        convolutions, which FP32 may get, multiply less."""
        compute = batch_size * FLOP_PER_IMAGE / self.flop_per_second[dtype]
        moved = PARAMETERS * WIDTH[dtype] + batch_size * (IMAGE_BYTES + LOGITS_BYTES)
        return max(compute, moved / self.copy_bytes_per_second)


def measure(device: torch.device) -> Ceilings:
    with torch.cuda.device(device):
        rates = {name: _matrix_rate(dtype, tf32) for name, (dtype, tf32) in _formats().items()}
        copy, to_device, from_device = _copies(device)
    return Ceilings(rates, copy, to_device, from_device)


def seconds(work: Callable[[], object]) -> float:
    """The median time of `work` on the current device's current stream, by CUDA events."""
    for _ in range(WARM_UP):
        work()
    times: list[float] = []
    for _ in range(REPEATS):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        begin.record()
        work()
        end.record()
        end.synchronize()
        times.append(begin.elapsed_time(end) / 1000)
    return statistics.median(times)


def _formats() -> dict[str, tuple[torch.dtype, bool]]:
    formats = {"float32": (torch.float32, False), "float16": (torch.float16, False)}
    if torch.cuda.get_device_capability() >= (8, 0):
        formats |= {"tf32": (torch.float32, True), "bfloat16": (torch.bfloat16, False)}
    return formats


def _matrix_rate(dtype: torch.dtype, tf32: bool) -> float:
    torch.set_float32_matmul_precision("high" if tf32 else "highest")
    try:
        a, b = (torch.randn(SIDE, SIDE, device="cuda").to(dtype) for _ in range(2))
        out = torch.empty_like(a)
        return 2 * SIDE**3 / seconds(lambda: torch.mm(a, b, out=out))
    finally:
        torch.set_float32_matmul_precision("highest")


def _copies(device: torch.device) -> tuple[float, float, float]:
    source = torch.randint(256, (BYTES,), dtype=torch.uint8, device=device)
    target = torch.empty_like(source)
    on_device = 2 * BYTES / seconds(lambda: target.copy_(source))
    part = source[: BYTES // 4]
    host = torch.empty(len(part), dtype=torch.uint8, pin_memory=True)
    away = len(part) / seconds(lambda: host.copy_(part, non_blocking=True))
    towards = len(part) / seconds(lambda: part.copy_(host, non_blocking=True))
    return on_device, towards, away

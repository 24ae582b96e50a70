"""The measured rates of a GPU's matrix products and copies, and the least time of a batch that follows from them."""

import statistics
from collections.abc import Callable
from dataclasses import dataclass

import torch

from models.engines.floating import DTYPES
from models.resnet import MACS_PER_IMAGE, PARAMETERS
from models.variants import VARIANTS

SIDE = 8192
"""Rows and columns of the matrices."""
BYTES = 2**31
"""Size of a copy on the device; a copy between host and device has a quarter of it."""
REPEATS = 9
"""Timed runs of each measurement."""
WARM_UP = 3
"""Untimed runs before them."""
FLOP_PER_IMAGE = 2 * MACS_PER_IMAGE
IMAGE_BYTES, LOGITS_BYTES = 3 * 32 * 32, 10 * 4


@dataclass(frozen=True)
class Ceilings:
    """Rates measured on random data, each the median of REPEATS runs."""

    flop_per_second: dict[str, float]
    """Of matrix products, by dtype of a row of VARIANTS."""
    copy_bytes_per_second: float
    """Of copies on the device: bytes read plus bytes written."""
    to_device_bytes_per_second: float
    """Of copies from pinned memory."""
    from_device_bytes_per_second: float

    def floor_seconds(self, dtype: str, batch_size: int) -> float:
        """Return the least time of a batch with direct convolutions.

        It is the longer of two times: all multiplications at the rate of matrix products; reading each weight and pixel
        and writing each logit once at the rate of copies. FP32 may be faster with Winograd's convolutions, which need
        fewer multiplications.
        """
        compute = batch_size * FLOP_PER_IMAGE / self.flop_per_second[dtype]
        moved = PARAMETERS * DTYPES[dtype].itemsize + batch_size * (IMAGE_BYTES + LOGITS_BYTES)
        return max(compute, moved / self.copy_bytes_per_second)


def measure(device: torch.device) -> Ceilings:
    """Measure the rates of a GPU."""
    with torch.cuda.device(device):
        rates = {dtype: _matrix_rate(DTYPES[dtype], tf32=dtype == "tf32") for dtype in dtypes()}
        copy, to_device, from_device = _copies(device)
    return Ceilings(rates, copy, to_device, from_device)


def seconds(work: Callable[[], object]) -> float:
    """Return the median seconds of `work` on the current stream of the current device, by CUDA events."""
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


def dtypes() -> list[str]:
    """Return the dtypes of the variants that the current GPU can run."""
    capability = torch.cuda.get_device_capability()
    rows = [row for row in VARIANTS.values() if row.gpu_builder and capability >= row.least_capability]
    return list(dict.fromkeys(row.dtype for row in rows))


def _matrix_rate(dtype: torch.dtype, *, tf32: bool) -> float:
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

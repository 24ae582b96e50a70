"""The clocks and scales of engines that run on torch: CUDA events, allocators, tensors."""

import os
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.profiler import profile

from models.measure import Phases


class CudaClock:
    """The clock for a GPU: CUDA events on the current stream, and the host's clock. `stop` waits for the stream."""

    def __init__(self) -> None:
        self.events = [torch.cuda.Event(enable_timing=True) for _ in range(4)]

    def start(self) -> None:
        torch.cuda.current_stream().synchronize()
        self.started = time.perf_counter()
        self.next = 0
        self.border()

    def border(self) -> None:
        self.events[self.next].record()
        self.next += 1

    def stop(self) -> Phases:
        self.border()
        self.events[3].synchronize()
        wall = time.perf_counter() - self.started
        a, b, c, d = self.events
        copy_in, inference, copy_out = (x.elapsed_time(y) / 1000 for x, y in ((a, b), (b, c), (c, d)))
        return Phases(copy_in, inference, copy_out, wall)


class CudaMemory(NamedTuple):
    """Bytes of the caching allocator on the current device."""

    allocated: int
    peak: int
    """The largest value of `allocated` since the last reset."""
    reserved: int


def cuda_memory() -> CudaMemory:
    """Return all three at once: `torch.cuda.memory_allocated` and its like collect every statistic for one number."""
    statistics = torch.cuda.memory_stats_as_nested_dict()
    allocated, reserved = (statistics[name]["all"] for name in ("allocated_bytes", "reserved_bytes"))
    return CudaMemory(allocated["current"], allocated["peak"], reserved["current"])


def activation_peak(forward: Callable[[], object]) -> int:
    """Run `forward` and return the most bytes that it has allocated on the CPU at once.

    This is the peak of the running sum over torch's allocation events, oneDNN's scratch memory included. A buffer that
    an earlier call left for reuse does not count.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # keeps the profiler off stderr
    with profile(profile_memory=True, use_kineto=False) as recorded:
        forward()
    events = [e for e in recorded.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Return the bytes of the tensors; tensors packed by oneDNN count with their packed size."""
    return sum(int(torch.ops.mkldnn._nbytes(t)) if t.is_mkldnn else t.nbytes for t in tensors)

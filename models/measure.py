"""The only clock and the only scales of the project: device-synchronised seconds by phase, bytes by kind."""

import ctypes
import time
from collections.abc import Callable, Iterable
from typing import NamedTuple, Protocol

import torch
from torch import Tensor
from torch.autograd.profiler import profile


class Phases(NamedTuple):
    """Seconds of one batch, the device synchronised at every border."""

    copy_in: float
    inference: float
    copy_out: float
    wall: float
    """By the host's clock, from the first border to the last."""


class Clock(Protocol):
    """Times three phases: `start`, then `border` twice, then `stop`."""

    def start(self) -> None: ...
    def border(self) -> None: ...
    def stop(self) -> Phases: ...


class HostClock:
    """For the CPU, which has done the work when the call returns."""

    def start(self) -> None:
        self.times = [time.perf_counter()]

    def border(self) -> None:
        self.times.append(time.perf_counter())

    def stop(self) -> Phases:
        self.border()
        a, b, c, d = self.times
        return Phases(b - a, c - b, d - c, d - a)


class CudaClock:
    """CUDA events on the current stream beside the host's clock; `stop` waits for the stream."""

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
    """Of `allocated`, since it was last reset."""
    reserved: int


def cuda_memory() -> CudaMemory:
    """All three at once: `torch.cuda.memory_allocated` and its like flatten and sort all statistics for each."""
    statistics = torch.cuda.memory_stats_as_nested_dict()
    allocated, reserved = (statistics[name]["all"] for name in ("allocated_bytes", "reserved_bytes"))
    return CudaMemory(allocated["current"], allocated["peak"], reserved["current"])


def activation_peak(forward: Callable[[], object]) -> int:
    """Bytes that `forward` has allocated on the CPU at most at once, beyond what was there before it.

    The running sum over torch's allocation events of one call, oneDNN's scratch memory included. A buffer that an
    earlier call left behind for reuse is not counted.
    """
    with profile(profile_memory=True, use_kineto=False) as recorded:
        forward()
    events = [e for e in recorded.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


class _MallInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`, see mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()  # noqa: SIM905
    ]


def growth(run: Callable[[], object]) -> int:
    """Bytes from malloc that this process holds after `run` and did not before: for code that keeps its scratch memory.

    0 where it cannot be measured: it needs Linux with glibc 2.33 or newer.
    """
    before = _malloced()
    run()
    return max(0, _malloced() - before)


def _malloced() -> int:
    """Bytes in use, of all threads, by the C library's books: resident memory counts in pages, some of them of 2 MB."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    mallinfo.restype = _MallInfo
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)


def nbytes(tensors: Iterable[Tensor]) -> int:
    """Bytes that the tensors hold, weights packed by oneDNN included."""
    return sum(int(torch.ops.mkldnn._nbytes(t)) if t.is_mkldnn else t.nbytes for t in tensors)

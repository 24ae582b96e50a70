"""The clock and the scale of the CPU: seconds by phase, bytes of malloc. Imports no torch."""

import ctypes
import time
from collections.abc import Callable
from contextlib import suppress
from typing import NamedTuple, Protocol


class Phases(NamedTuple):
    """Seconds of one batch by phase, the device synchronised at every border between phases."""

    copy_in: float
    inference: float
    copy_out: float
    wall: float
    """Of the host's clock, from the first border to the last."""


class Clock(Protocol):
    """A clock for three phases: call `start`, then `border` twice, then `stop`."""

    def start(self) -> None: ...
    def border(self) -> None: ...
    def stop(self) -> Phases: ...


class HostClock:
    """The clock for the CPU, where a call returns when its work is done."""

    def start(self) -> None:
        self.times = [time.perf_counter()]

    def border(self) -> None:
        self.times.append(time.perf_counter())

    def stop(self) -> Phases:
        self.border()
        a, b, c, d = self.times
        return Phases(b - a, c - b, d - c, d - a)


class _MallInfo(ctypes.Structure):
    """glibc's `struct mallinfo2`, see mallinfo(3)."""

    _fields_ = [
        (name, ctypes.c_size_t)
        for name in "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost".split()  # noqa: SIM905
    ]


def release_unused() -> None:
    """Give the memory that malloc keeps for later back to the system. Without glibc do nothing."""
    with suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)


def growth(run: Callable[[], object]) -> int:
    """Return how many more bytes of malloc this process holds after `run`. For code that keeps its scratch memory.

    0 without glibc 2.33 or newer, which tells these bytes.
    """
    before = _malloced()
    run()
    return max(0, _malloced() - before)


def _malloced() -> int:
    """Return the bytes that all threads have from malloc. Resident memory would count pages, some of 2 MB."""
    try:
        mallinfo = ctypes.CDLL(None).mallinfo2
    except (AttributeError, OSError):
        return 0
    mallinfo.restype = _MallInfo
    found = mallinfo()
    return int(found.uordblks + found.hblkhd)

"""Memory of worker processes by kind, from the operating system, the GPU's driver and the worker's allocator."""

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field

import psutil

from models import nvml

KEPT_SECONDS = 1.0
"""The time for which a reading stands. The kernel needs tens of milliseconds to count the pages of one worker."""


@dataclass(frozen=True)
class Process:
    """A running worker: its process id, the UUID of its GPU (empty on the CPU), its allocator's last bytes by kind."""

    pid: int
    gpu: str = ""
    allocator: dict[str, int] = field(default_factory=dict)


def read(process: Process) -> dict[str, int]:
    """Return the bytes of each kind now, or nothing if the process ended. A kind that is unknown here is left out.

    `rss` counts shared pages in full, `pss` a share of them. On a GPU there are also `allocated` and `reserved`
    (PyTorch's caching allocator), `process_gpu` (the driver's number for the process, CUDA context included) and
    `device_used` (the memory that all processes use on the device).
    """
    try:
        memory = psutil.Process(process.pid).memory_full_info()
    except psutil.Error:
        return {}
    kinds = {"rss": memory.rss, "pss": memory.pss} | process.allocator
    return kinds | nvml.memory(process.gpu, process.pid) if process.gpu else kinds


class Readings:
    """The memory of all workers, read in a thread: the event loop goes on while the kernel counts pages.

    `workers` returns each variant's name -> its processes now.
    """

    def __init__(self, workers: Callable[[], dict[str, list[Process]]]) -> None:
        self._workers = workers
        self._of: dict[int, dict[str, int]] = {}
        self._read_at = float("-inf")

    async def refresh(self) -> None:
        """Read all workers again if the last reading is older than KEPT_SECONDS, or there is a new worker.

        The last reading stands if the machine has no thread to spare.
        """
        processes = [process for each in self._workers().values() for process in each]
        is_known = {process.pid for process in processes} <= set(self._of)
        if is_known and time.monotonic() - self._read_at < KEPT_SECONDS:
            return
        with suppress(RuntimeError):
            self._of = await asyncio.to_thread(_read_all, processes)
            self._read_at = time.monotonic()

    def totals(self) -> dict[str, dict[str, int]]:
        """Return variant -> kind -> bytes of its present workers together, as they were last read."""
        return {
            variant: _total([self._of.get(process.pid, {}) for process in processes])
            for variant, processes in self._workers().items()
        }


def _read_all(processes: list[Process]) -> dict[int, dict[str, int]]:
    return {process.pid: read(process) for process in processes}


def _total(readings: list[dict[str, int]]) -> dict[str, int]:
    kinds = {kind: None for reading in readings for kind in reading}
    return {kind: sum(reading.get(kind, 0) for reading in readings) for kind in kinds}

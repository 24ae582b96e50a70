"""Memory of a worker process by kind, read from the operating system, the GPU's driver and what the worker said."""

from dataclasses import dataclass, field

import psutil

from models import nvml


@dataclass(frozen=True)
class Process:
    """A running worker: its process, the UUID of its GPU (empty on the CPU), its allocator's last numbers by kind."""

    pid: int
    gpu: str = ""
    allocator: dict[str, int] = field(default_factory=dict)


def read(process: Process) -> dict[str, int]:
    """Kind -> bytes, now; empty when the process is gone. A kind that this machine cannot tell is left out.

    `rss`, `pss`: shared pages in full, by share. On a GPU also `allocated`, `reserved` (PyTorch's caching allocator),
    `process_gpu` (what the driver counts for the process, its CUDA context included) and `device_used` (by everybody).
    """
    try:
        memory = psutil.Process(process.pid).memory_full_info()
    except psutil.Error:
        return {}
    kinds = {"rss": memory.rss, "pss": memory.pss} | process.allocator
    return kinds | nvml.memory(process.gpu, process.pid) if process.gpu else kinds

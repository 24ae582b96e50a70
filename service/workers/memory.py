"""Memory of a worker process by kind, from the operating system, the GPU's driver and the worker's allocator."""

from dataclasses import dataclass, field

import psutil

from models import nvml


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

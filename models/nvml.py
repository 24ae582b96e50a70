"""The GPUs of this machine as the driver sees them. Creates no CUDA context and imports no torch."""

import os
from functools import cache

import pynvml

from models import needs


def count() -> int:
    """Return how many CUDA GPUs this process may use, CUDA_VISIBLE_DEVICES considered.

    0 without a driver, or without torch, which runs every engine on a GPU.
    """
    if not needs.has_torch():
        return 0
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    allowed = None if visible is None else [name for name in visible.split(",") if name.strip() not in ("", "-1")]
    try:
        pynvml.nvmlInit()
        found = int(pynvml.nvmlDeviceGetCount())
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return 0
    return found if allowed is None else min(found, len(allowed))


def memory(uuid: str, pid: int) -> dict[str, int]:
    """Return the bytes in use on the GPU with this UUID: `device_used` by all processes, `process_gpu` by this one.

    A number that the driver does not tell is left out. In a container it may know the process by another id.
    """
    try:
        device = _device(uuid)
        used = {"device_used": int(pynvml.nvmlDeviceGetMemoryInfo(device).used)}
        own = [p.usedGpuMemory for p in pynvml.nvmlDeviceGetComputeRunningProcesses(device) if p.pid == pid]
    except pynvml.NVMLError:
        return {}
    return used | ({"process_gpu": int(own[0])} if own and own[0] is not None else {})


@cache
def _device(uuid: str) -> object:
    pynvml.nvmlInit()  # never shut down: every scrape of the metrics asks again
    return pynvml.nvmlDeviceGetHandleByUUID(uuid)

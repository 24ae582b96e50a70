"""The GPUs of this machine, asked of the driver: no CUDA context is made, torch is not needed."""

import os
from functools import cache

import pynvml


def count() -> int:
    """CUDA GPUs that this process may use: what the driver has, limited by CUDA_VISIBLE_DEVICES; 0 without a driver."""
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
    """Bytes in use on the GPU with this UUID: `device_used` by everybody, `process_gpu` by the process.

    What the driver does not tell is left out: in a container it may know the process by another id only.
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
    pynvml.nvmlInit()  # stays up for the life of the process: a scrape asks again and again
    return pynvml.nvmlDeviceGetHandleByUUID(uuid)

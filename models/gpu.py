"""The GPUs of this machine, asked of the driver: no CUDA context is made, torch is not needed."""

import os

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

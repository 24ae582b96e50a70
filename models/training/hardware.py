"""The device that a run trains on."""

import torch

from common import machine
from models.variants import VARIANTS


def has_bfloat16(device: torch.device) -> bool:
    """Return whether the device multiplies in bfloat16 faster than in float32."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= VARIANTS["bf16"].least_capability
    return not machine.usable_flags().isdisjoint(VARIANTS["bf16-cpu"].cpu_flags)


def name(device: torch.device) -> str:
    """Return the name of a GPU, or that of the CPU with its instructions and torch's threads."""
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"{machine.name()} ({machine.isa()}), {torch.get_num_threads()} threads"


def describe(device: torch.device) -> str:
    """Return the device and the dtype of its convolutions, for the card of a run."""
    return f"{name(device)}, convolutions in {'bfloat16' if has_bfloat16(device) else 'float32'}"

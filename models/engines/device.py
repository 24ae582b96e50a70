"""Where a variant runs on this machine, and what the GPU there can do."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from models.variants import Variant, VariantUnavailable

WITHOUT_TENSOR_CORES = re.compile(r"GTX 16|MX[45]\d0|\bT(400|500|550|600|1000|1200|2000)\b")
"""Names of Turing chips (7.5) without tensor cores: TU116 and TU117."""
LEAST_CAPABILITY = {"tf32": (8, 0), "bfloat16": (8, 0)}
"""Compute capability from which the tensor cores have a format: Ampere brought both."""


@dataclass(frozen=True)
class Gpu:
    """A CUDA GPU as torch describes it."""

    index: int
    uuid: str
    """As the driver writes it: `GPU-...`."""
    name: str
    capability: tuple[int, int]
    memory_bytes: int

    @property
    def device(self) -> torch.device:
        return torch.device("cuda", self.index)

    @property
    def isa(self) -> str:
        return "sm_{}{}".format(*self.capability)

    @property
    def has_tensor_cores(self) -> bool:
        return self.capability >= (7, 0) and not WITHOUT_TENSOR_CORES.search(self.name)


def gpus() -> tuple[Gpu, ...]:
    """The GPUs that torch can use here; none where there is no driver or torch has no CUDA."""
    if not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return tuple(Gpu(i, f"GPU-{p.uuid}", p.name, (p.major, p.minor), p.total_memory) for i, p in enumerate(found))


def choose(variant: Variant, asked: str | None, present: Sequence[Gpu]) -> Gpu | None:
    """The GPU that the variant runs on, None for the CPU.

    Args:
        variant: whose row says where it belongs.
        asked: `cpu`, `cuda` or `cuda:N`; None follows the row.
        present: as `gpus` gives them.

    Raises:
        VariantUnavailable: it cannot run there, or there is no such device.
    """
    wanted = asked or variant.device
    if wanted == "auto":
        wanted = "cuda" if present else "cpu"
    place = torch.device(wanted)
    if place.type == "cpu":
        if variant.dtype == "tf32":
            raise VariantUnavailable(f"{variant.name} needs a CUDA GPU: TF32 is a format of tensor cores")
        return None
    if variant.device == "cpu":
        raise VariantUnavailable(f"{variant.name} runs on the CPU only, not on {wanted}")
    if not present:
        raise VariantUnavailable(f"{variant.name} needs a CUDA GPU and this machine has none")
    if (place.index or 0) >= len(present):
        raise VariantUnavailable(f"{variant.name} was asked for on {wanted}; this machine has {len(present)} GPU(s)")
    gpu, least = present[place.index or 0], LEAST_CAPABILITY.get(variant.dtype, (0, 0))
    if gpu.capability < least:
        needed = "{}.{}".format(*least)
        raise VariantUnavailable(f"{variant.name} needs compute capability {needed}; {gpu.name} is {gpu.isa}")
    return gpu


def expectations(variant: Variant, gpu: Gpu) -> tuple[str, ...]:
    """What to know about this precision on this GPU, in sentences for the card."""
    notes = {"float32": ("TF32 off",), "tf32": ("TF32 in the convolutions, FP32 in the linear layer",)}
    if variant.dtype == "float16" and not gpu.has_tensor_cores:
        return (f"{gpu.name} ({gpu.isa}) has no tensor cores: fp16 halves the memory; do not expect it to be faster",)
    return notes.get(variant.dtype, ())

"""The GPUs of this machine, and the one that a variant runs on. Imports torch only where the driver has a GPU."""

import re
from collections.abc import Sequence
from dataclasses import dataclass

from models import needs, nvml
from models.variants import Variant, VariantUnavailable

WITHOUT_TENSOR_CORES = re.compile(r"GTX 16|MX[45]\d0|\bT(400|500|550|600|1000|1200|2000)\b")
"""Names of Turing chips (7.5) without tensor cores: TU116 and TU117."""


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
    def device(self) -> str:
        """Its name in torch."""
        return f"cuda:{self.index}"

    @property
    def isa(self) -> str:
        return "sm_{}{}".format(*self.capability)

    @property
    def has_tensor_cores(self) -> bool:
        return self.capability >= (7, 0) and not WITHOUT_TENSOR_CORES.search(self.name)


def gpus() -> tuple[Gpu, ...]:
    """Return the GPUs that torch can use; none without a driver or with a torch that has no CUDA."""
    if not nvml.count():
        return ()
    import torch  # noqa: PLC0415 - a machine without a GPU needs no torch

    if not torch.cuda.is_available():
        return ()
    found = [torch.cuda.get_device_properties(index) for index in range(torch.cuda.device_count())]
    return tuple(Gpu(i, f"GPU-{p.uuid}", p.name, (p.major, p.minor), p.total_memory) for i, p in enumerate(found))


def choose(variant: Variant, asked: str | None, present: Sequence[Gpu]) -> Gpu | None:
    """Return the GPU that the variant runs on, None for the CPU.

    Args:
        variant: the row to place.
        asked: `cpu`, `cuda` or `cuda:N`; None follows the row.
        present: the machine's GPUs, see `gpus`.

    Raises:
        VariantUnavailable: the variant cannot run there, or there is no such device.
    """
    wanted = asked or variant.place(len(present))
    place, _, number = wanted.partition(":")
    if place == "cpu":
        if variant.cpu_builder is None:
            raise VariantUnavailable(f"{variant.name} needs a CUDA GPU: no CPU computes in {variant.dtype}")
        return None
    if variant.gpu_builder is None:
        raise VariantUnavailable(f"{variant.name} runs on the CPU only, not on {wanted}")
    if not present:
        without_torch = needs.torch_or_sentence(f"{variant.name}, which runs on a GPU,")
        raise VariantUnavailable(without_torch or f"{variant.name} needs a CUDA GPU and this machine has none")
    if int(number or 0) >= len(present):
        raise VariantUnavailable(f"{variant.name} was asked for on {wanted}; this machine has {len(present)} GPU(s)")
    gpu = present[int(number or 0)]
    if gpu.capability < variant.least_capability:
        needed = "{}.{}".format(*variant.least_capability)
        raise VariantUnavailable(f"{variant.name} needs compute capability {needed}; {gpu.name} is {gpu.isa}")
    return gpu


def notes(variant: Variant, gpu: Gpu) -> tuple[str, ...]:
    """Return the notes of an engine's info on the variant's precision on this GPU."""
    own = (variant.gpu_note,) if variant.gpu_note else ()
    if variant.wants_tensor_cores and not gpu.has_tensor_cores:
        return (
            *own,
            f"{gpu.name} ({gpu.isa}) has no tensor cores: do not expect {variant.name} to be faster than fp32",
        )
    return own

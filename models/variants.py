"""The precisions as rows of data. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass
from importlib.util import find_spec


class VariantUnavailable(Exception):
    """This machine cannot run the variant; the text says why."""


@dataclass(frozen=True)
class Variant:
    """One precision of the network."""

    name: str
    dtype: str
    """`float32`, `tf32`, `float16`, `bfloat16` or `int8`."""
    device: str
    """`cpu`, `cuda`, or `auto`: a GPU if there is one, else the CPU."""
    backend: str
    reference: str | None
    """The variant that it is fairly held against: the same device, threads and care."""
    summary: str


ON_CPU = "openvino or onednn"
VARIANTS = {
    row.name: row
    for row in (
        Variant("fp32", "float32", "auto", f"cudnn, {ON_CPU}", None, "Single precision, the reference; TF32 off."),
        Variant("fp16", "float16", "cuda", "cudnn", "fp32", "Half precision weights and activations on tensor cores."),
        Variant("int8", "int8", "cpu", ON_CPU, "fp32-cpu", "Static INT8: convolutions, additions and linear layer."),
        Variant("fp32-cpu", "float32", "cpu", ON_CPU, None, "Single precision on the CPU, INT8's fair baseline."),
        Variant(
            "int8-dynamic", "int8", "cpu", ON_CPU, "fp32-cpu",
            "The classic dynamic recipe: only the linear layer in INT8, every convolution in FP32.",
        ),
        Variant("fp32-tf32", "tf32", "cuda", "cudnn", "fp32", "Single precision weights, TF32 in the convolutions."),
        Variant("bf16", "bfloat16", "cuda", "cudnn", "fp32", "FP16's size, FP32's range, 8 bits of mantissa."),
    )
}  # fmt: skip
REFERENCE = "fp32"
"""The variant that comparisons use where it is served."""
DEFAULT_VARIANTS = ("fp32", "fp16", "int8")
GPU_BACKENDS = ("cudnn", "cudnn-fused", "inductor")
"""How a GPU runs the floating-point variants, always in CUDA graphs: cuDNN's convolutions and torch's own kernels for
the rest; bias, addition and ReLU fused into the convolutions by cuDNN; or into kernels that torch.compile generates."""
DEFAULT_GPU_BACKEND = "cudnn"
CPU_BACKENDS = ("openvino", "onednn")
"""How a CPU runs fp32-cpu, int8 and the convolutions of int8-dynamic, all of them alike: as OpenVINO graphs, or by
torch's own oneDNN operators."""


def default_cpu_backend() -> str:
    """OpenVINO where it is installed: it is the faster one (docs/decisions/0005)."""
    return "openvino" if find_spec("openvino") else "onednn"


def thread_environment(cpu_backend: str | None = None) -> dict[str, str]:
    """What the environment of a process should say before torch is imported there to run such an engine.

    Unbound OpenMP threads fell to a twentieth of their speed on a busy machine. Binding leaves the thread that imports
    torch one core, which OpenVINO's threads would then share.
    """
    return {"OMP_PROC_BIND": "true"} if (cpu_backend or default_cpu_backend()) == "onednn" else {}


def with_references(names: tuple[str, ...], gpus: int) -> tuple[str, ...]:
    """Return the served variants, then `fp32-cpu` if `int8` would have no reference on its own device."""
    needed = gpus > 0 and {REFERENCE, "int8"} <= set(names) and "fp32-cpu" not in names
    return (*names, "fp32-cpu") if needed else names

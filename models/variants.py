"""The precisions as rows of data, and `load`, which turns a row into a running engine. Imports torch only in `load`."""

from __future__ import annotations

import os
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from models import cpu
from models.checkpoint import AS_IT_SAYS, Preparation

if TYPE_CHECKING:
    from pathlib import Path

    from models.engines.base import Engine


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


def load(
    name: str,
    *,
    device: str | None = None,
    threads: int | None = None,
    checkpoint: Path | None = None,
    preparation: Preparation = AS_IT_SAYS,
    gpu_backend: str | None = None,
    cpu_backend: str | None = None,
) -> Engine:
    """Load a variant: weights verified, folded, quantized and placed, but not warmed up.

    Args:
        name: a key of VARIANTS.
        device: `cpu`, `cuda` or `cuda:N`; None follows the row. `cpu` also runs fp16 and bf16, slowly, for
            functional tests.
        threads: CPU threads of this process; None takes the cores available (`models.cpu.available_cores`).
        checkpoint: None takes the environment variable CHECKPOINT, else the bundled one. For `int8` it may be the INT8
            artifact that `python -m models.quantize --artifact` writes.
        preparation: what images the checkpoint takes, where its card does not say.
        gpu_backend: one of GPU_BACKENDS; None takes DEFAULT_GPU_BACKEND. Means nothing on the CPU.
        cpu_backend: one of CPU_BACKENDS; None takes `default_cpu_backend()`. Means nothing on a GPU.

    Raises:
        KeyError: no such variant.
        ValueError: no such backend.
        VariantUnavailable: the machine lacks what the variant needs.
        models.checkpoint.CheckpointError: the weights, or what derives from them, are missing, damaged or mismatched.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which measures memory, logs to stderr otherwise
    threads = (
        threads or cpu.available_cores()
    )  # before OpenMP comes with torch: OMP_PROC_BIND leaves this thread one core
    from models.engines import loading  # noqa: PLC0415 - torch belongs to the processes that run engines

    return loading.load(VARIANTS[name], device, threads, checkpoint, preparation, gpu_backend, cpu_backend)

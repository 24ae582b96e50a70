"""The precisions as rows of data: every fact that differs between them is a column. Imports no torch."""

from __future__ import annotations

from dataclasses import dataclass


class VariantUnavailable(Exception):
    """This machine cannot run the variant; the text says why."""


@dataclass(frozen=True)
class Variant:
    """One precision of the network."""

    name: str
    dtype: str
    """`float32`, `tf32`, `float16`, `bfloat16` or `int8`."""
    device: str
    """Where it runs unless a caller says otherwise: `cpu`, `cuda`, or `auto` (a GPU if there is one, else the CPU)."""
    backend: str
    """The libraries that can run its layers; the info of a loaded engine names the one that does."""
    cpu_builder: str | None
    """`module:function` that builds the engine on the CPU, see `models.loading.load`; None if no CPU runs it."""
    gpu_builder: str | None
    """The same on a GPU; None if no GPU runs it."""
    reference: str | None
    """The variant to compare it with, on the same device; None for a variant that others are compared with."""
    least_agreement: float
    """Share of the 300 sample images on which its top-1 class must be the FP32 reference's. It allows a tie or two.
    INT8 agrees on 98.5 % or more of the test set; 0.96 is over three standard deviations of 300 draws below that."""
    summary: str
    least_capability: tuple[int, int] = (0, 0)
    """CUDA compute capability that its GPU must have. Ampere (8.0) brought TF32 and bfloat16."""
    wants_tensor_cores: bool = False
    """True if only tensor cores make it faster than FP32."""
    gpu_note: str = ""
    """What the info of its engine says on a GPU."""
    cpu_flags: tuple[str, ...] = ()
    """The kernel's names of CPU instructions, of which the CPU must have one to compute natively in `dtype`. Others
    would simulate it. Empty if every CPU will do."""

    def place(self, gpus: int) -> str:
        """Return `cpu` or `cuda`: where it runs on a machine with so many GPUs."""
        return ("cuda" if gpus else "cpu") if self.device == "auto" else self.device


FLOAT_CPU = "models.engines.on_cpu:floating_point"
EAGER_CPU = "models.engines.eager:build"
GPU = "models.engines.on_gpu:build"
VARIANTS = {
    row.name: row
    for row in (
        Variant(
            "fp32", "float32", "auto", "cudnn, openvino", FLOAT_CPU, GPU, None, 0.995,
            "Single precision, the reference; TF32 off.", gpu_note="TF32 off",
        ),
        Variant(
            "fp16", "float16", "cuda", "cudnn", EAGER_CPU, GPU, "fp32", 0.99,
            "Half precision weights and activations on tensor cores.", wants_tensor_cores=True,
        ),
        Variant(
            "int8", "int8", "cpu", "openvino", "models.engines.on_cpu:int8", None, "fp32-cpu", 0.96,
            "Static INT8: convolutions, additions and linear layer.",
        ),
        Variant(
            "fp32-cpu", "float32", "cpu", "openvino", FLOAT_CPU, None, None, 0.995,
            "Single precision on the CPU, INT8's fair baseline.",
        ),
        Variant(
            "int8-dynamic", "int8", "cpu", "openvino", "models.engines.dynamic:build", None, "fp32-cpu", 0.98,
            "The classic dynamic recipe: only the linear layer in INT8, every convolution in FP32.",
        ),
        Variant(
            "fp32-tf32", "tf32", "cuda", "cudnn", None, GPU, "fp32", 0.99,
            "Single precision weights, TF32 in the convolutions.", (8, 0), wants_tensor_cores=True,
            gpu_note="TF32 in the convolutions, FP32 in the linear layer",
        ),
        Variant(
            "bf16", "bfloat16", "cuda", "cudnn", EAGER_CPU, GPU, "fp32", 0.97,
            "FP16's size, FP32's range, 8 bits of mantissa.", (8, 0), wants_tensor_cores=True,
        ),
        Variant(
            "bf16-cpu", "bfloat16", "cpu", "openvino", FLOAT_CPU, None, "fp32-cpu", 0.97,
            "bfloat16 on a CPU that computes in it: no calibration.", cpu_flags=("avx512_bf16", "amx_bf16"),
        ),
        Variant(
            "fp16-cpu", "float16", "cpu", "openvino", FLOAT_CPU, None, "fp32-cpu", 0.99,
            "Half precision on a CPU that computes in it: no calibration.",
            cpu_flags=("avx512_fp16", "amx_fp16", "asimdhp"),
        ),
    )
}  # fmt: skip
REFERENCES = tuple(name for name, row in VARIANTS.items() if row.reference is None)
"""The variants that others are compared with."""
REFERENCE = REFERENCES[0]
"""The variant that comparisons use where it is served: `fp32`."""
DEFAULT_VARIANTS = ("fp32", "fp16", "int8")
GPU_BACKENDS = ("cudnn", "cudnn-fused", "inductor")
"""How a GPU runs the floating-point variants, always in CUDA graphs: cuDNN's convolutions and torch's own kernels for
the rest; bias, addition and ReLU fused into the convolutions by cuDNN; or into kernels that torch.compile generates."""
DEFAULT_GPU_BACKEND = "auto"
"""Lets each dtype run on the fastest backend that the GPU has, see `models.engines.gpu_layers.FASTEST`."""


def native_variants(cpu_flags: frozenset[str]) -> tuple[str, ...]:
    """Return the variants that need special instructions of the CPU, if it has them: see `machine.usable_flags`."""
    return tuple(name for name, row in VARIANTS.items() if not cpu_flags.isdisjoint(row.cpu_flags))


def with_references(names: tuple[str, ...], gpus: int) -> tuple[str, ...]:
    """Return the served variants `names`, then the references that a fair comparison of them lacks.

    Nothing is added unless REFERENCE is served. A served variant with the dtype and device of a missing reference
    stands in for it: without a GPU `fp32` runs on the CPU, so `int8` needs no `fp32-cpu`.
    """
    if REFERENCE not in names:
        return names
    served = {(VARIANTS[name].dtype, VARIANTS[name].place(gpus)) for name in names}
    needed = dict.fromkeys(row.reference for name in names if (row := VARIANTS[name]).reference)
    missing = (VARIANTS[name] for name in needed if name and name not in names)
    return (*names, *(row.name for row in missing if (row.dtype, row.place(gpus)) not in served))

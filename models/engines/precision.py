"""The precision of the CPU's convolutions: which one the CPU computes natively, which one OpenVINO runs. No torch.

A precision hint binds OpenVINO to nothing. It ignores bfloat16 on a CPU without AVX-512 and simulates it on one with
AVX-512 alone (`hasHardwareSupport` in OpenVINO's src/plugins/intel_cpu/src/utils/precision_support.cpp). So a variant
names the instructions that it needs, and the compiled graph is read back.
"""

from typing import Any

from common import machine
from models.variants import Variant, VariantUnavailable

HINTS = {"float32": "f32", "bfloat16": "bf16", "float16": "f16"}
"""OpenVINO's name of each floating-point dtype of a row, as INFERENCE_PRECISION_HINT takes it."""
BYTES = {"f32": 4, "bf16": 2, "f16": 2}
"""The size of a weight that is packed for convolutions of this precision."""
PROMISED = {dtype: frozenset({name}) for dtype, name in HINTS.items()} | {"int8": frozenset({"u8", "i8"})}
"""The precisions that the convolutions of a row may run in, by the row's dtype. Convolutions in u8 have s8 weights."""


def check_cpu(variant: Variant) -> None:
    """Check that this CPU computes natively in the variant's dtype.

    Raises:
        VariantUnavailable: it has none of the instructions, or ONEDNN_MAX_CPU_ISA forbids them.
    """
    if variant.cpu_flags and machine.usable_flags().isdisjoint(variant.cpu_flags):
        needed = " or ".join(variant.cpu_flags)
        raise VariantUnavailable(
            f"{variant.name} needs a CPU with {needed}, and this one ({machine.name()}) has none that oneDNN may use: "
            f"it would only simulate {variant.dtype}"
        )


def check_convolutions(variant: Variant, found: str, also: frozenset[str] = frozenset()) -> None:
    """Check that the convolutions run in the precision that the variant's row promises.

    Args:
        variant: the row.
        found: what `of_convolutions` returned.
        also: precisions in which some of its layers are meant to run.

    Raises:
        VariantUnavailable: they run in another one, or the graph has no convolution.
    """
    promised = PROMISED[variant.dtype]
    if promised.isdisjoint(names := set(found.split("+"))) or not names <= promised | also:
        raise VariantUnavailable(
            f"{variant.name} promises convolutions in {' or '.join(sorted(promised))}; "
            f"on this CPU OpenVINO runs them in {found or 'no precision that it tells'}"
        )


def of_convolutions(compiled: Any) -> str:
    """Return the precision of the convolutions of an `openvino.CompiledModel`; several are joined as in `f32+u8`.

    It is the precision of pixels and weights in the graph that the CPU executes, with OpenVINO's names.
    """
    about = [node.get_rt_info() for node in compiled.get_runtime_model().get_ops()]
    convolutions = (info for info in about if info["layerType"].value == "Convolution")
    return "+".join(sorted({str(info["runtimePrecision"].value) for info in convolutions}))

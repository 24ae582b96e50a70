"""From a row of VARIANTS to a running engine."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from models import calibration, checkpoint, cpu, measure
from models.engines import dynamic, floating, int8, quantized
from models.engines.base import Engine, EngineCard
from models.engines.network import fold
from models.engines.runner import CpuEngine, CudaEngine
from models.variants import Variant, VariantUnavailable

DTYPES = {"float32": torch.float32, "float16": torch.float16}


def load(variant: Variant, device: str | None, threads: int, path: Path | None) -> Engine:
    """See `models.variants.load`."""
    place = choose_device(variant, device)
    torch.set_num_threads(threads)
    path = path or checkpoint.default_path()
    return BUILDERS.get(variant.name, _floating)(variant, place, path)


def choose_device(variant: Variant, asked: str | None) -> torch.device:
    """Where the variant runs on this machine.

    Raises:
        VariantUnavailable: it cannot run there, or there is no such device.
    """
    wanted = asked or variant.device
    if wanted == "auto":
        wanted = "cuda" if torch.cuda.is_available() else "cpu"
    place = torch.device(wanted)
    if place.type == "cpu":
        return place
    if variant.device == "cpu":
        raise VariantUnavailable(f"{variant.name} runs on the CPU only, not on {wanted}")
    if not torch.cuda.is_available():
        raise VariantUnavailable(f"{variant.name} needs a CUDA GPU and this machine has none")
    if (place.index or 0) >= torch.cuda.device_count():
        count = torch.cuda.device_count()
        raise VariantUnavailable(f"{variant.name} was asked for on {wanted}; this machine has {count} GPU(s)")
    return torch.device("cuda", place.index or 0)


def _floating(variant: Variant, place: torch.device, path: Path) -> Engine:
    state, card = checkpoint.load(path)
    network, dtype = fold(state), DTYPES[variant.dtype]
    use_onednn = place.type == "cpu" and dtype is torch.float32 and torch.backends.mkldnn.is_available()
    forward, held = floating.onednn(network) if use_onednn else floating.eager(network, place, dtype)
    backend = "cudnn" if place.type == "cuda" else "onednn" if use_onednn else "eager"
    size = card.bytes if dtype is torch.float32 else checkpoint.half_precision_bytes(state)
    if place.type == "cpu":
        return CpuEngine(variant, _card(variant, place, backend, card.sha256, size, held), forward)
    _forbid_tf32()
    return CudaEngine(variant, _card(variant, place, backend, card.sha256, size, held, notes=("TF32 off",)), forward)


def _int8(variant: Variant, place: torch.device, path: Path) -> Engine:
    _require_onednn(variant)
    if path.name.endswith(checkpoint.ARTIFACT_SUFFIX):
        network, sha256 = quantized.deserialize(path)
        size = path.stat().st_size
    else:
        state, card = checkpoint.load(path)
        sha256 = card.sha256
        ranges = calibration.load(checkpoint.beside(path, ".int8.json"), sha256).ranges
        network = quantized.quantize(fold(state), ranges, quantized.FULL_LIMIT)
        size = len(quantized.serialize(network, sha256))
    notes: tuple[str, ...] = ()
    if not cpu.has_vnni():
        network = quantized.narrowed(network)
        notes = ("no VNNI on this CPU: weights of 7 bits, so that no sum saturates",)
    forward, held, constants = int8.build(network)
    return CpuEngine(variant, _card(variant, place, "onednn", sha256, size, held, constants, notes), forward)


def _int8_dynamic(variant: Variant, place: torch.device, path: Path) -> Engine:
    _require_onednn(variant)
    state, card = checkpoint.load(path)
    limit = quantized.FULL_LIMIT if cpu.has_vnni() else quantized.SAFE_LIMIT
    forward, held, constants = dynamic.build(fold(state), limit)
    size = dynamic.serialized_bytes(state)
    notes = ("only the linear layer is INT8: 5,120 of 11,173,962 weights",)
    return CpuEngine(variant, _card(variant, place, "onednn", card.sha256, size, held, constants, notes), forward)


BUILDERS = {"int8": _int8, "int8-dynamic": _int8_dynamic}


def _require_onednn(variant: Variant) -> None:
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        raise VariantUnavailable(f"{variant.name} needs oneDNN's quantized operators, which this build of torch lacks")


def _card(
    variant: Variant,
    place: torch.device,
    backend: str,
    sha256: str,
    serialized: int,
    held: Sequence[Tensor],
    constants: Sequence[Tensor] = (),
    notes: tuple[str, ...] = (),
) -> EngineCard:
    on_gpu = place.type == "cuda"
    return EngineCard(
        variant=variant.name,
        device=str(place),
        device_name=torch.cuda.get_device_name(place) if on_gpu else cpu.name(),
        dtype=variant.dtype,
        backend=backend,
        isa="sm_{}{}".format(*torch.cuda.get_device_capability(place)) if on_gpu else cpu.isa(),
        threads=torch.get_num_threads(),
        device_uuid=f"GPU-{torch.cuda.get_device_properties(place).uuid}" if on_gpu else "",
        torch=torch.__version__,
        checkpoint_sha256=sha256,
        serialized_bytes=serialized,
        parameter_bytes=measure.nbytes(held),
        buffer_bytes=measure.nbytes(constants),
        notes=notes,
    )


def _forbid_tf32() -> None:
    """FP32 means FP32: 23 bits of mantissa, not TF32's 10. For the whole process."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]

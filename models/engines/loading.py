"""From a row of VARIANTS to a running engine."""

from pathlib import Path

import torch
from torch import Tensor

from models import checkpoint, cpu, measure
from models.engines import floating
from models.engines.base import Engine, EngineCard
from models.engines.network import fold
from models.engines.runner import CpuEngine, CudaEngine, Forward
from models.variants import Variant, VariantUnavailable

DTYPES = {"float32": torch.float32, "float16": torch.float16}


def load(variant: Variant, device: str | None, threads: int | None, path: Path | None) -> Engine:
    """See `models.variants.load`."""
    place = choose_device(variant, device)
    torch.set_num_threads(threads or cpu.available_cores())
    return _load_float(variant, place, path)


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
        raise VariantUnavailable(f"{variant.name} was asked for on {wanted}; this machine has {torch.cuda.device_count()} GPU(s)")
    return torch.device("cuda", place.index or 0)


def _load_float(variant: Variant, place: torch.device, path: Path | None) -> Engine:
    state, card = checkpoint.load(path)
    network, dtype = fold(state), DTYPES[variant.dtype]
    use_onednn = place.type == "cpu" and dtype is torch.float32 and torch.backends.mkldnn.is_available()
    forward, held = floating.onednn(network) if use_onednn else floating.eager(network, place, dtype)
    backend = "cudnn" if place.type == "cuda" else "onednn" if use_onednn else "eager"
    size = card.bytes if dtype is torch.float32 else checkpoint.half_precision_bytes(state)
    return _engine(variant, place, forward, held, backend, card.sha256, size)


def _engine(
    variant: Variant, place: torch.device, forward: Forward, held: list[Tensor], backend: str, sha256: str, serialized: int
) -> Engine:
    on_gpu = place.type == "cuda"
    if on_gpu:
        major, minor = torch.cuda.get_device_capability(place)
        _forbid_tf32()
    card = EngineCard(
        variant=variant.name,
        device=str(place),
        device_name=torch.cuda.get_device_name(place) if on_gpu else cpu.name(),
        dtype=variant.dtype,
        backend=backend,
        isa=f"sm_{major}{minor}" if on_gpu else cpu.isa(),
        threads=torch.get_num_threads(),
        torch=torch.__version__,
        checkpoint_sha256=sha256,
        serialized_bytes=serialized,
        parameter_bytes=measure.nbytes(held),
        buffer_bytes=0,
        notes=("TF32 off",) if on_gpu else (),
    )
    return CudaEngine(variant, card, forward) if on_gpu else CpuEngine(variant, card, forward)


def _forbid_tf32() -> None:
    """FP32 means FP32: 23 bits of mantissa, not TF32's 10. For the whole process."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]

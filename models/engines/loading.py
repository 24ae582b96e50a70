"""From a row of VARIANTS to a running engine."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from models import calibration, checkpoint, cpu, measure
from models.calibration import Calibration
from models.checkpoint import Preparation
from models.engines import dynamic, floating, int8, quantized
from models.engines.base import Engine, EngineCard
from models.engines.network import FoldedLayer, fold
from models.engines.runner import CpuEngine, CudaEngine
from models.topology import STEMS, Network
from models.variants import Variant, VariantUnavailable

DTYPES = {"float32": torch.float32, "float16": torch.float16}


def load(variant: Variant, device: str | None, threads: int, path: Path | None, preparation: Preparation) -> Engine:
    """See `models.variants.load`."""
    place = choose_device(variant, device)
    torch.set_num_threads(threads)
    path = path or checkpoint.default_path()
    return BUILDERS.get(variant.name, _floating)(variant, place, path, preparation)


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


def _floating(variant: Variant, place: torch.device, path: Path, preparation: Preparation) -> Engine:
    state, card = checkpoint.load(path, preparation)
    network, dtype = fold(state, card), DTYPES[variant.dtype]
    use_onednn = place.type == "cpu" and dtype is torch.float32 and torch.backends.mkldnn.is_available()
    forward, held = floating.onednn(network) if use_onednn else floating.eager(network, place, dtype)
    on_gpu = place.type == "cuda"
    if on_gpu:
        _forbid_tf32()
    described = _card(
        variant,
        place,
        network,
        held,
        backend="cudnn" if on_gpu else "onednn" if use_onednn else "eager",
        checkpoint_sha256=card.sha256,
        serialized_bytes=card.bytes if dtype is torch.float32 else checkpoint.half_precision_bytes(state),
        notes=("TF32 off",) if on_gpu else (),
    )
    return CudaEngine(variant, described, forward) if on_gpu else CpuEngine(variant, described, forward)


def _int8(variant: Variant, place: torch.device, path: Path, preparation: Preparation) -> Engine:
    _require_onednn(variant)
    if path.name.endswith(checkpoint.ARTIFACT_SUFFIX):
        network, about = quantized.deserialize(path)
        sha256, calibration_sha256, size = about["checkpoint_sha256"], about["calibration_sha256"], path.stat().st_size
    else:
        state, card = checkpoint.load(path, preparation)
        folded = fold(state, card)
        found = _calibration(path, card.sha256, folded, preparation.calibration_images)
        network = quantized.quantize(folded, found.ranges, quantized.FULL_LIMIT)
        sha256, calibration_sha256 = card.sha256, found.sha256
        size = len(quantized.serialize(network, sha256, calibration_sha256))
    notes: tuple[str, ...] = ()
    if not cpu.has_vnni():
        network = quantized.narrowed(network)
        notes = ("no VNNI on this CPU: weights of 7 bits, so that no sum saturates",)
    forward, held, constants = int8.build(network)
    described = _card(
        variant,
        place,
        network,
        held,
        constants,
        checkpoint_sha256=sha256,
        calibration_sha256=calibration_sha256,
        serialized_bytes=size,
        notes=notes,
    )
    return CpuEngine(variant, described, forward)


def _calibration(path: Path, sha256: str, network: Network[FoldedLayer], folder: Path | None) -> Calibration:
    """What lies beside the checkpoint, if it is for such images; else what the bundled images or the folder give."""
    place = checkpoint.beside(path, ".int8.json")
    if folder is None and place.exists():
        found = calibration.load(place, sha256)
        if found.input == network.input:
            return found
    from models import quantize  # noqa: PLC0415 - most checkpoints come calibrated

    return quantize.at_load(network, sha256, folder)


def _int8_dynamic(variant: Variant, place: torch.device, path: Path, preparation: Preparation) -> Engine:
    _require_onednn(variant)
    state, card = checkpoint.load(path, preparation)
    network = fold(state, card)
    forward, held, constants = dynamic.build(network, quantized.FULL_LIMIT if cpu.has_vnni() else quantized.SAFE_LIMIT)
    described = _card(
        variant,
        place,
        network,
        held,
        constants,
        checkpoint_sha256=card.sha256,
        serialized_bytes=dynamic.serialized_bytes(state),
        notes=("only the linear layer is INT8: 5,120 of 11.2 million weights",),
    )
    return CpuEngine(variant, described, forward)


BUILDERS = {"int8": _int8, "int8-dynamic": _int8_dynamic}


def _require_onednn(variant: Variant) -> None:
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        raise VariantUnavailable(f"{variant.name} needs oneDNN's quantized operators, which this build of torch lacks")


def _card(
    variant: Variant,
    place: torch.device,
    network: Network[Any],
    held: Sequence[Tensor],
    constants: Sequence[Tensor] = (),
    backend: str = "onednn",
    **known: Any,
) -> EngineCard:
    """The card of an engine that holds these weights and constants; `known` are the fields that depend on its kind."""
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
        parameter_bytes=measure.nbytes(held),
        buffer_bytes=measure.nbytes(constants),
        input_size=network.input.side,
        mean=network.input.mean,
        std=network.input.std,
        architecture=STEMS["plain" if network.is_pooled else "cifar"],
        **known,
    )


def _forbid_tf32() -> None:
    """FP32 means FP32: 23 bits of mantissa, not TF32's 10. For the whole process."""
    torch.backends.cuda.matmul.fp32_precision = "ieee"
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # type: ignore[attr-defined]

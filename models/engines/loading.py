"""From a row of VARIANTS to a running engine."""

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from models import calibration, checkpoint, cpu, measure
from models.checkpoint import Card, State
from models.engines import cudnn, dynamic, floating, int8, quantized
from models.engines.base import Engine, EngineCard
from models.engines.cuda import CudaEngine
from models.engines.device import Gpu, choose, expectations, gpus
from models.engines.graphs import CudaStream
from models.engines.network import fold
from models.engines.runner import CpuEngine
from models.variants import DEFAULT_GPU_BACKEND, Variant, VariantUnavailable

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def load(variant: Variant, device: str | None, threads: int, path: Path | None, gpu_backend: str | None) -> Engine:
    """See `models.variants.load`."""
    gpu = choose(variant, device, gpus())
    torch.set_num_threads(threads)
    path = path or checkpoint.default_path()
    if variant.name in CPU_BUILDERS:
        return CPU_BUILDERS[variant.name](variant, path)
    return _on_cpu(variant, path) if gpu is None else _on_gpu(variant, gpu, path, gpu_backend)


def _on_cpu(variant: Variant, path: Path) -> Engine:
    state, card = checkpoint.load(path)
    network, dtype = fold(state), DTYPES[variant.dtype]
    use_onednn = dtype is torch.float32 and torch.backends.mkldnn.is_available()
    forward, held = floating.onednn(network) if use_onednn else floating.eager(network, torch.device("cpu"), dtype)
    backend, size = "onednn" if use_onednn else "eager", _serialized(dtype, state, card)
    return CpuEngine(variant, _card(variant, backend, card.sha256, size, held), forward)


def _on_gpu(variant: Variant, gpu: Gpu, path: Path, backend: str | None) -> Engine:
    state, card = checkpoint.load(path)
    dtype, backend = DTYPES[variant.dtype], backend or DEFAULT_GPU_BACKEND
    forward, held = cudnn.build(backend, fold(state), gpu.device, dtype)
    notes, size = expectations(variant, gpu), _serialized(dtype, state, card)
    about = _card(variant, backend, card.sha256, size, held, notes=notes, gpu=gpu)
    return CudaEngine(variant, about, forward, CudaStream(gpu.device, tf32=variant.dtype == "tf32"))


def _serialized(dtype: torch.dtype, state: State, card: Card) -> int:
    return card.bytes if dtype is torch.float32 else checkpoint.half_precision_bytes(state)


def _int8(variant: Variant, path: Path) -> Engine:
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
    return CpuEngine(variant, _card(variant, "onednn", sha256, size, held, constants, notes), forward)


def _int8_dynamic(variant: Variant, path: Path) -> Engine:
    _require_onednn(variant)
    state, card = checkpoint.load(path)
    limit = quantized.FULL_LIMIT if cpu.has_vnni() else quantized.SAFE_LIMIT
    forward, held, constants = dynamic.build(fold(state), limit)
    size = dynamic.serialized_bytes(state)
    notes = ("only the linear layer is INT8: 5,120 of 11,173,962 weights",)
    return CpuEngine(variant, _card(variant, "onednn", card.sha256, size, held, constants, notes), forward)


CPU_BUILDERS = {"int8": _int8, "int8-dynamic": _int8_dynamic}


def _require_onednn(variant: Variant) -> None:
    if not torch.backends.mkldnn.is_available() or not hasattr(torch.ops.onednn, "qconv2d_pointwise"):
        raise VariantUnavailable(f"{variant.name} needs oneDNN's quantized operators, which this build of torch lacks")


def _card(
    variant: Variant,
    backend: str,
    sha256: str,
    serialized: int,
    held: Sequence[Tensor],
    constants: Sequence[Tensor] = (),
    notes: tuple[str, ...] = (),
    gpu: Gpu | None = None,
) -> EngineCard:
    return EngineCard(
        variant=variant.name,
        device=str(gpu.device) if gpu else "cpu",
        device_name=gpu.name if gpu else cpu.name(),
        dtype=variant.dtype,
        backend=backend,
        isa=gpu.isa if gpu else cpu.isa(),
        tensor_cores=gpu.has_tensor_cores if gpu else False,
        device_memory_bytes=gpu.memory_bytes if gpu else 0,
        threads=torch.get_num_threads(),
        device_uuid=gpu.uuid if gpu else "",
        torch=torch.__version__,
        checkpoint_sha256=sha256,
        serialized_bytes=serialized,
        parameter_bytes=measure.nbytes(held),
        buffer_bytes=measure.nbytes(constants),
        notes=notes,
    )

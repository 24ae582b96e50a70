"""From a row of VARIANTS to a running engine."""

import os
from importlib import import_module, metadata
from pathlib import Path
from types import ModuleType
from typing import Any

import torch

from common import machine
from models import calibrate, calibration, checkpoint, files
from models.calibration import Calibration
from models.card import AS_IT_SAYS, Card, Preparation, read_card
from models.checkpoint import State
from models.engines import dynamic, floating, gpu_layers, quantized
from models.engines.base import Engine, EngineInfo
from models.engines.built import Built
from models.engines.cpu import CpuEngine
from models.engines.device import Gpu, choose, expectations, gpus
from models.engines.gpu import CudaEngine
from models.engines.graphs import CudaStream
from models.engines.network import FoldedLayer, fold
from models.topology import STEMS, Network
from models.variants import DEFAULT_GPU_BACKEND, VARIANTS, Variant, VariantUnavailable, default_cpu_backend

DTYPES = {
    "float32": torch.float32,
    "tf32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


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
        threads: CPU threads of this process; None takes the cores available (`common.machine.available_cores`).
        checkpoint: None takes the environment variable CHECKPOINT, else the bundled one. For `int8` it may be the INT8
            artifact that `python -m models.quantize --artifact` writes.
        preparation: what images the checkpoint takes, where its card does not say.
        gpu_backend: one of GPU_BACKENDS; None takes DEFAULT_GPU_BACKEND. Means nothing on the CPU.
        cpu_backend: one of CPU_BACKENDS; None takes `default_cpu_backend()`. Means nothing on a GPU.

    Raises:
        KeyError: no such variant.
        ValueError: no such backend.
        VariantUnavailable: the machine lacks what the variant needs.
        models.files.CheckpointError: the weights, or what derives from them, are missing, damaged or mismatched.
    """
    os.environ.setdefault("KINETO_LOG_LEVEL", "99")  # torch's profiler, which measures memory, logs to stderr otherwise
    variant, path = VARIANTS[name], checkpoint or files.default_path()
    threads = threads or machine.available_cores()
    gpu = choose(variant, device, gpus())
    torch.set_num_threads(threads)
    if gpu:
        return _on_gpu(variant, gpu, path, preparation, gpu_backend or DEFAULT_GPU_BACKEND)
    build = CPU_BUILDERS.get(variant.name, _floating)
    return build(variant, path, preparation, cpu_backend or default_cpu_backend(), threads)


def _on_gpu(variant: Variant, gpu: Gpu, path: Path, preparation: Preparation, backend: str) -> Engine:
    state, card = checkpoint.load(path, preparation)
    network, dtype = fold(state, card), DTYPES[variant.dtype]
    forward, held = gpu_layers.build(backend, network, gpu.device, dtype)
    info = _info(
        variant,
        network,
        Built.of(forward, held),
        backend,
        gpu=gpu,
        checkpoint_sha256=card.sha256,
        serialized_bytes=_serialized(dtype, state, card),
        notes=expectations(variant, gpu),
    )
    return CudaEngine(variant, info, forward, CudaStream(gpu.device, tf32=variant.dtype == "tf32"))


def _serialized(dtype: torch.dtype, state: State, card: Card) -> int:
    return card.bytes if dtype is torch.float32 else checkpoint.half_precision_bytes(state)


def _floating(variant: Variant, path: Path, preparation: Preparation, backend: str, threads: int) -> Engine:
    state, card = checkpoint.load(path, preparation)
    network, dtype = fold(state, card), DTYPES[variant.dtype]
    if dtype is torch.float32:
        built = _functions(variant, backend).fp32(network, threads)
    else:
        backend, built = "eager", Built.of(*floating.eager(network, torch.device("cpu"), dtype))
    info = _info(
        variant,
        network,
        built,
        backend,
        checkpoint_sha256=card.sha256,
        serialized_bytes=_serialized(dtype, state, card),
    )
    return CpuEngine(variant, info, built)


def _int8(variant: Variant, path: Path, preparation: Preparation, backend: str, threads: int) -> Engine:
    functions = _functions(variant, backend)
    notes: list[str] = []
    if path.name.endswith(files.ARTIFACT_SUFFIX):
        read_card(path, preparation)  # refuses what the user says otherwise
        network, about = quantized.deserialize(path)
        sha256, calibration_sha256, size = about["checkpoint_sha256"], about["calibration_sha256"], path.stat().st_size
    else:
        state, card = checkpoint.load(path, preparation)
        folded = fold(state, card)
        found, notes = _calibration(path, card.sha256, folded, preparation.calibration_images)
        network = quantized.quantize(folded, found.ranges, quantized.FULL_LIMIT)
        sha256, calibration_sha256 = card.sha256, found.sha256
        size = len(quantized.serialize(network, sha256, calibration_sha256, card.classes))
    if not machine.has_vnni():
        network = quantized.narrowed(network)
        notes.append("no VNNI on this CPU: weights of 7 bits, so that no sum saturates")
    built = functions.int8(network, threads)
    info = _info(
        variant,
        network,
        built,
        backend,
        checkpoint_sha256=sha256,
        calibration_sha256=calibration_sha256,
        serialized_bytes=size,
        notes=tuple(notes),
    )
    return CpuEngine(variant, info, built)


def _calibration(
    path: Path, sha256: str, network: Network[FoldedLayer], folder: Path | None
) -> tuple[Calibration, list[str]]:
    """What lies beside the checkpoint, if it is for such images; else what the bundled images or the folder give.

    And what a reader of the card should know about it.
    """
    place = files.beside(path, ".int8.json")
    if folder is None and place.exists():
        found = calibration.load(place, sha256)
        if found.input == network.input:
            return found, []
    found = calibrate.at_load(network, sha256, folder)
    return found, [] if folder else [f"ranges of the {found.images} bundled images, which are of CIFAR-10's test set"]


def _int8_dynamic(variant: Variant, path: Path, preparation: Preparation, backend: str, threads: int) -> Engine:
    _functions(variant, "onednn")  # the one integer layer runs there in any case
    state, card = checkpoint.load(path, preparation)
    network = fold(state, card)
    limit = quantized.FULL_LIMIT if machine.has_vnni() else quantized.SAFE_LIMIT
    built = dynamic.build(_functions(variant, backend).features(network, threads), network, limit)
    info = _info(
        variant,
        network,
        built,
        backend,
        checkpoint_sha256=card.sha256,
        serialized_bytes=dynamic.serialized_bytes(state),
        notes=("only the linear layer is INT8: 5,120 of 11.2 million weights",),
    )
    return CpuEngine(variant, info, built)


CPU_BUILDERS = {"int8": _int8, "int8-dynamic": _int8_dynamic}


def _functions(variant: Variant, backend: str) -> ModuleType:
    """The module of a CPU backend: its functions `fp32`, `features` and `int8` build a network from its layers."""
    try:
        module = import_module(f"models.engines.{backend}")  # only who runs on it pays for it
    except ImportError as error:
        raise VariantUnavailable(f"{variant.name}: the backend {backend} is not installed ({error})") from error
    if backend == "onednn" and not torch.backends.mkldnn.is_available():
        raise VariantUnavailable(f"{variant.name}: this build of torch lacks oneDNN")
    return module


def _info(
    variant: Variant, network: Network[Any], built: Built, backend: str, gpu: Gpu | None = None, **known: Any
) -> EngineInfo:
    """The info of an engine; `known` are the fields that depend on its kind."""
    return EngineInfo(
        variant=variant.name,
        device=str(gpu.device) if gpu else "cpu",
        device_name=gpu.name if gpu else machine.name(),
        dtype=variant.dtype,
        backend=backend,
        backend_version=_backend_version(backend, gpu),
        isa=gpu.isa if gpu else machine.isa(),
        tensor_cores=gpu.has_tensor_cores if gpu else False,
        device_memory_bytes=gpu.memory_bytes if gpu else 0,
        threads=torch.get_num_threads(),
        device_uuid=gpu.uuid if gpu else "",
        torch=torch.__version__,
        parameter_bytes=built.parameter_bytes,
        buffer_bytes=built.buffer_bytes,
        input_size=network.input.side,
        mean=network.input.mean,
        std=network.input.std,
        architecture=STEMS["plain" if network.is_pooled else "cifar"],
        **known,
    )


def _backend_version(backend: str, gpu: Gpu | None) -> str:
    if gpu:
        return f"cuDNN {torch.backends.cudnn.version()}"  # the convolutions' in every backend
    if backend == "openvino":
        return f"OpenVINO {metadata.version('openvino')}"
    return f"torch {torch.__version__}"

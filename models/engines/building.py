"""The order that every builder gets, and the info that it gives its engine."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from common import machine
from models.card import Card, Preparation, names_of
from models.engines.base import EngineInfo
from models.engines.device import Gpu
from models.topology import Network
from models.variants import Variant


@dataclass(frozen=True)
class Order:
    """One variant to build: from which file, for which images, on which device."""

    variant: Variant
    path: Path
    """The checkpoint, or the INT8 artifact."""
    preparation: Preparation
    threads: int
    gpu: Gpu | None
    """None for the CPU."""
    gpu_backend: str
    """One of GPU_BACKENDS, or `auto`."""


@dataclass(frozen=True)
class Origin:
    """The files that an engine's weights come from."""

    card: Card
    """The checkpoint's, or the INT8 artifact's."""
    serialized_bytes: int
    """Size of the file that the variant needs."""
    calibration_sha256: str = ""


@dataclass(frozen=True)
class Resident:
    """Bytes in the device's memory, see EngineInfo."""

    parameter_bytes: int
    buffer_bytes: int = 0


def describe(
    order: Order,
    network: Network[Any],
    origin: Origin,
    resident: Resident,
    backend: str,
    *notes: str,
    convolution_precision: str = "",
) -> EngineInfo:
    """Return the info of the engine that was built to `order`.

    Raises:
        CheckpointError: see `models.card.names_of`.
    """
    gpu = order.gpu
    runtime = _runtime(backend, on_gpu=gpu is not None)
    return EngineInfo(
        variant=order.variant.name,
        device=gpu.device if gpu else "cpu",
        device_name=gpu.name if gpu else machine.name(),
        dtype=order.variant.dtype,
        backend=backend,
        backend_version=runtime.layers,
        isa=gpu.isa if gpu else machine.isa(),
        tensor_cores=gpu.has_tensor_cores if gpu else False,
        device_memory_bytes=gpu.memory_bytes if gpu else 0,
        threads=order.threads,
        device_uuid=gpu.uuid if gpu else "",
        torch=runtime.torch,
        checkpoint_sha256=origin.card.sha256,
        serialized_bytes=origin.serialized_bytes,
        parameter_bytes=resident.parameter_bytes,
        buffer_bytes=resident.buffer_bytes,
        input_size=network.input.side,
        mean=network.input.mean,
        std=network.input.std,
        resize=network.input.resize,
        architecture=network.architecture.sentence,
        classes=names_of(origin.card, network.architecture.classes),
        calibration_sha256=origin.calibration_sha256,
        convolution_precision=convolution_precision,
        notes=notes,
    )


class _Runtime(NamedTuple):
    """The libraries that run an engine, with their versions."""

    layers: str
    """As `EngineInfo.backend_version`."""
    torch: str
    """As `EngineInfo.torch`."""


def _runtime(backend: str, *, on_gpu: bool) -> _Runtime:
    if backend == "openvino":
        return _Runtime(f"OpenVINO {machine.version('openvino')}", "")
    import torch  # noqa: PLC0415 - the engines of OpenVINO do without

    layers = f"cuDNN {torch.backends.cudnn.version()}" if on_gpu else f"torch {torch.__version__}"
    return _Runtime(layers, torch.__version__)  # every GPU backend runs cuDNN's convolutions

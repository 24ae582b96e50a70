"""What every engine is and gives back. numpy only, so that a process without torch can name these types."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.variants import Variant

CLASS_COUNT = 10


@dataclass(frozen=True)
class Execution:
    """The logits of one batch and what they cost."""

    logits: NDArray[np.float32]
    """`[N, 10] float32`."""
    copy_in_seconds: float
    """Host to device. On the CPU the pixels are used where they lie: the time to wrap them."""
    inference_seconds: float
    """Pixels on the device to logits on the device, normalisation included, the device synchronised at both ends."""
    copy_out_seconds: float
    """Device to host."""
    wall_seconds: float
    """The whole call by the host's clock; more than the sum of the phases by what launching and waiting cost."""
    memory_bytes: int
    """What the batch needed beyond the resident weights; 0 where it was not measured (a batch size never warmed up)."""
    memory_kind: str
    """`activation_peak` (CPU: allocated at most at once by a forward of this batch size, measured once at warm-up),
    `cuda_graph` (the same for the CUDA graph that ran, measured when it was captured: an upper bound, for the batch was
    padded to the graph's size; the memory stays reserved) or `cuda_peak` (no graph of this size: the caching
    allocator's peak during this batch, minus what was allocated before it)."""


@dataclass(frozen=True)
class EngineInfo:
    """What runs, and on what. `dataclasses.asdict` of it is JSON."""

    variant: str
    device: str
    device_name: str
    dtype: str
    backend: str
    backend_version: str
    """The library that runs the layers, with its version: `OpenVINO 2026.4.1`, `cuDNN 92400`, `torch 2.14.1`."""
    isa: str
    """Instruction sets that matter here (`avx512_vnni+avx2`), or the GPU's compute capability (`sm_90`)."""
    tensor_cores: bool
    """Whether the GPU has them; False on the CPU."""
    device_memory_bytes: int
    """All of the GPU's memory; 0 on the CPU."""
    threads: int
    device_uuid: str
    """The GPU's UUID as the driver writes it (`GPU-...`); empty on the CPU."""
    torch: str
    checkpoint_sha256: str
    serialized_bytes: int
    """Size of the file that this variant needs: the fp32 checkpoint, the half precision file, the INT8 artifact."""
    parameter_bytes: int
    """Resident weights and biases, as packed for the backend."""
    buffer_bytes: int
    """Resident constants that are not learnt: scales, normalisation, staging."""
    input_size: int
    """Height and width in pixels of the images that it takes."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """What it subtracts from and divides each channel by, on the scale 0 to 1."""
    architecture: str
    calibration_sha256: str = ""
    """Of the calibration that INT8's activations follow; empty for the others."""
    notes: tuple[str, ...] = ()


def image_shape(info: EngineInfo) -> tuple[int, int, int]:
    """Of one image that the engine takes: channels, height, width."""
    return 3, info.input_size, info.input_size


class EngineError(Exception):
    """A batch that was accepted and has no answer; the text says why."""


class OutOfMemory(EngineError):
    """The batch did not fit into the device's memory. The engine goes on with others."""


class DeviceLost(EngineError):
    """The device or its libraries failed. Nothing runs in this process any more."""


class NonFiniteLogits(EngineError):
    """The network gave NaN or infinity."""


class Engine(Protocol):
    """A loaded variant. One thread may call it at a time."""

    variant: Variant
    device: str
    info: EngineInfo
    activation_peaks: dict[int, int]
    """Batch size -> bytes beyond the resident weights, as measured by `warm_up` (`Execution.memory_kind` says how)."""
    allocator: dict[str, int]
    """Bytes of PyTorch's caching allocator on the GPU as of the last run: `allocated` between batches, and `reserved`.
    Empty on the CPU."""

    def run(self, pixels: NDArray[np.uint8]) -> Execution:
        """The logits of `[N, 3, S, S] uint8` C-contiguous RGB pixels, N >= 1, S the info's `input_size`.

        Raises:
            ValueError: another shape, dtype or memory layout.
            EngineError: there is no answer.
        """
        ...

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run each batch size, so that first requests meet no set-up cost, and measure its activation peak.

        Raises:
            EngineError: as `run`.
        """
        ...


def check_pixels(pixels: object, side: int) -> None:
    """Raise ValueError unless `pixels` is what `Engine.run` takes."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be a uint8 array, not {getattr(pixels, 'dtype', type(pixels).__name__)}")
    if pixels.ndim != 4 or pixels.shape[1:] != (3, side, side) or len(pixels) < 1:
        raise ValueError(f"pixels must have shape [N, 3, {side}, {side}] with N >= 1, not {list(pixels.shape)}")
    if not pixels.flags.c_contiguous:
        raise ValueError("pixels must be C-contiguous (channel first); use numpy.ascontiguousarray")


def check_logits(logits: NDArray[np.float32], variant: str) -> None:
    """Raise NonFiniteLogits unless every one of the `[N, 10]` logits is a number."""
    if not np.isfinite(logits).all():
        wrong = int((~np.isfinite(logits)).any(axis=1).sum())
        raise NonFiniteLogits(f"{variant} gave logits that are not finite for {wrong} of {len(logits)} images")

"""The types of an engine: its info, its answer to a batch, its errors. Imports no torch."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from models.variants import Variant


@dataclass(frozen=True)
class Execution:
    """The logits of one batch and what they cost."""

    logits: NDArray[np.float32]
    """`[N, classes] float32`."""
    copy_in_seconds: float
    """Host to device. On the CPU the pixels are not copied unless they are read-only."""
    inference_seconds: float
    """From pixels to logits on the device, normalisation included, the device synchronised at both ends."""
    copy_out_seconds: float
    """Device to host."""
    wall_seconds: float
    """The whole call by the host's clock: the phases, plus launching and waiting."""
    memory_bytes: int
    """Bytes that the batch needed beyond the resident weights; 0 if its size was never warmed up on the CPU."""
    memory_kind: str
    """How `memory_bytes` was measured:

    - `activation_peak` (CPU): the most bytes that a forward of this batch size allocates at once, measured at warm-up.
    - `cuda_graph`: the same for the CUDA graph that ran, measured at its capture. It is an upper bound, because the
      batch was padded to the graph's size; the memory stays reserved.
    - `cuda_peak` (a GPU without a graph of this size): the allocator's peak during this batch, minus the bytes that
      were allocated before it."""


@dataclass(frozen=True)
class EngineInfo:
    """A loaded variant: its weights, its device, its sizes. `dataclasses.asdict` of it is JSON."""

    variant: str
    device: str
    device_name: str
    dtype: str
    backend: str
    backend_version: str
    """The library that runs the layers, with its version: `OpenVINO 2026.4.1`, `cuDNN 92400`, `torch 2.14.1`."""
    isa: str
    """The CPU's instruction sets (`avx512_vnni+avx2`), or the GPU's compute capability (`sm_90`)."""
    tensor_cores: bool
    """True if the GPU has tensor cores; False on the CPU."""
    device_memory_bytes: int
    """Size of the GPU's memory; 0 on the CPU."""
    threads: int
    device_uuid: str
    """The GPU's UUID as the driver writes it (`GPU-...`); empty on the CPU."""
    torch: str
    """torch's version if it runs layers; empty for the engines of OpenVINO, which do without."""
    checkpoint_sha256: str
    serialized_bytes: int
    """Size of the file that this variant needs: the fp32 checkpoint, the half precision file, the INT8 artifact."""
    parameter_bytes: int
    """Resident weights and biases, as packed for the backend."""
    buffer_bytes: int
    """Resident constants that are not learnt: scales, normalisation, staging."""
    input_size: int
    """Height and width of its images in pixels."""
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    """The normalisation: mean and standard deviation of each channel, on the scale 0 to 1."""
    architecture: str
    classes: tuple[str, ...]
    """The names of the classes in the order of the logits."""
    resize: int | None = None
    """Length in pixels to which the shorter side of an image is resized before its centre is cut out; None: the largest
    centred square is resized to the input size."""
    calibration_sha256: str = ""
    """The calibration that set the scales of INT8's activations; empty for other variants."""
    convolution_precision: str = ""
    """OpenVINO's name of the precision in which the convolutions run, read from the compiled graph: `f32`, `bf16`,
    `f16`, or `u8` for integers; several are joined with `+`. Empty where OpenVINO runs no convolution."""
    notes: tuple[str, ...] = ()
    """Sentences for people: limits and choices on this machine."""


def image_shape(info: EngineInfo) -> tuple[int, int, int]:
    """Return the shape of one image for the engine: channels, height, width."""
    return 3, info.input_size, info.input_size


class EngineError(Exception):
    """The engine accepted a batch and cannot answer it; the text says why."""


class OutOfMemory(EngineError):
    """The batch did not fit into the device's memory. The engine can run smaller ones."""


class DeviceLost(EngineError):
    """The device or its libraries failed. This process cannot use them any more."""


class NonFiniteLogits(EngineError):
    """A logit is NaN or infinite."""


class Engine(Protocol):
    """A loaded variant. Only one thread at a time may call it."""

    variant: Variant
    device: str
    info: EngineInfo
    activation_peaks: dict[int, int]
    """Batch size -> bytes beyond the resident weights, as measured by `warm_up` (`Execution.memory_kind` says how)."""
    allocator: dict[str, int]
    """Bytes of torch's caching allocator on a GPU after the last run: `allocated` and `reserved`. Empty on the CPU."""

    def run(self, pixels: NDArray[np.uint8]) -> Execution:
        """Run one batch: `[N, 3, S, S] uint8` C-contiguous RGB pixels, N >= 1, S the info's `input_size`.

        Raises:
            ValueError: shape, dtype or memory layout are others.
            EngineError: the engine cannot answer.
        """
        ...

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run each batch size, so that first requests bear no set-up cost, and measure its activation peak.

        Raises:
            EngineError: see `run`.
        """
        ...


def in_batches(pixels: NDArray[np.uint8], sizes: Iterable[int]) -> Iterator[NDArray[np.uint8]]:
    """Yield the images in batches of these sizes, which begin anew after the last; the last batch may be smaller."""
    first = 0
    for size in cycle(sizes):
        if first >= len(pixels):
            return
        yield pixels[first : first + size]
        first += size


def check_pixels(pixels: object, side: int) -> None:
    """Raise ValueError unless `pixels` is an input of `Engine.run`."""
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8:
        raise ValueError(f"pixels must be a uint8 array, not {getattr(pixels, 'dtype', type(pixels).__name__)}")
    if pixels.ndim != 4 or pixels.shape[1:] != (3, side, side) or len(pixels) < 1:
        raise ValueError(f"pixels must have shape [N, 3, {side}, {side}] with N >= 1, not {list(pixels.shape)}")
    if not pixels.flags.c_contiguous:
        raise ValueError("pixels must be C-contiguous (channel first); use numpy.ascontiguousarray")


def check_logits(logits: NDArray[np.float32], variant: str) -> None:
    """Raise NonFiniteLogits unless all of the `[N, classes]` logits are finite."""
    if not np.isfinite(logits).all():
        wrong = int((~np.isfinite(logits)).any(axis=1).sum())
        raise NonFiniteLogits(f"{variant} gave logits that are not finite for {wrong} of {len(logits)} images")

"""The engine that drives a network function on a GPU: graphs by batch size, pinned staging, events between phases."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray

from models.engines.base import (
    DeviceLost,
    EngineInfo,
    Execution,
    OutOfMemory,
    check_logits,
    check_pixels,
    image_shape,
)
from models.engines.graphs import Plan, Stream, captured_size
from models.engines.tensors import TensorForward
from models.variants import Variant

CUDA_ERROR_MEMORY_ALLOCATION = 2
"""https://docs.nvidia.com/cuda/cuda-runtime-api/group__CUDART__TYPES.html"""
NO_ENGINE = "unable to find an engine"
"""torch's message when every kernel of cuDNN failed, which happens when their workspace does not fit."""


class CudaEngine:
    """A network function on a GPU, run on a stream that no other engine uses.

    Batch sizes that were warmed up run as CUDA graphs, padded to the next captured size; other sizes run without a
    graph. Copies go through pinned memory, and the host waits once per batch, for the logits.
    """

    def __init__(self, variant: Variant, info: EngineInfo, forward: TensorForward, stream: Stream) -> None:
        self.variant = variant
        self.device = info.device
        self.info = info
        self._notes = info.notes
        self.activation_peaks: dict[int, int] = {}
        self.allocator: dict[str, int] = {}
        self._forward = forward
        self._stream = stream
        self._graphs: dict[int, Plan] = {}
        self._padded: dict[int, int] = {}
        with _typed_errors(self.device):
            self._stage(1)

    def _shape(self, size: int) -> tuple[int, ...]:
        return size, *image_shape(self.info)

    def _stage(self, size: int) -> None:
        """Allocate pinned memory for pixels and logits of batches up to `size`."""
        self._pixels = self._stream.pinned(self._shape(size), torch.uint8)
        self._logits = self._stream.pinned((size, len(self.info.classes)), torch.float32)

    @torch.inference_mode()
    def run(self, pixels: NDArray[np.uint8]) -> Execution:
        check_pixels(pixels, self.info.input_size)
        size = len(pixels)
        with _typed_errors(self.device), self._stream.current():
            if size > len(self._pixels):
                self._stage(size)
            graph = self._graphs.get(self._padded.get(size, 0))
            execution = self._execute(graph or self._stream.direct(self._forward, self._shape(size)), pixels)
            if graph is None:
                self.allocator = self._stream.allocator()
        check_logits(execution.logits, self.variant.name)
        return execution

    def _execute(self, plan: Plan, pixels: NDArray[np.uint8]) -> Execution:
        size, clock = len(pixels), self._stream.clock
        clock.start()
        self._pixels.numpy()[:size] = pixels
        plan.pixels[:size].copy_(self._pixels[:size], non_blocking=True)
        clock.border()
        logits = plan()
        clock.border()
        self._logits[:size].copy_(logits[:size], non_blocking=True)
        cost = clock.stop()
        answer: NDArray[np.float32] = self._logits[:size].numpy().copy()
        return Execution(answer, *cost, plan.memory_bytes, plan.memory_kind)

    @torch.inference_mode()
    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        largest = max(batch_sizes)
        self._padded |= {size: captured_size(size, largest) for size in batch_sizes}
        missing = set(self._padded.values()) - set(self._graphs)
        with _typed_errors(self.device), self._stream.current():
            self._stage(max(largest, len(self._pixels)))
            try:
                for size in sorted(missing, reverse=True):  # largest first, so that the others reuse its memory
                    self._graphs[size] = self._stream.capture(self._forward, self._shape(size))
            except BaseException:
                # A graph that is destroyed frees memory of cuBLAS that the other graphs of its stream use
                # (https://github.com/pytorch/pytorch/issues/193402), so drop all; the next warm-up captures anew.
                self._graphs.clear()
                self._padded.clear()
                self.activation_peaks = {}
                raise
            self.allocator = self._stream.allocator()
        self.activation_peaks = {size: self._graphs[padded].memory_bytes for size, padded in self._padded.items()}
        sizes, reserved = ", ".join(map(str, sorted(self._graphs))), self.allocator["reserved"]
        note = f"CUDA graphs for {sizes} images, other batches padded; {reserved:,} bytes stay reserved on the GPU"
        self.info = replace(self.info, notes=(*self._notes, note))


@contextmanager
def _typed_errors(device: str) -> Iterator[None]:
    """Turn the RuntimeErrors of CUDA and its libraries into errors that say whether the process can go on."""
    try:
        yield
    except RuntimeError as error:
        reason = ". ".join(str(error).partition("\n")[0].split(". ")[:2])  # the rest describes other processes
        full = getattr(error, "error_code", None) == CUDA_ERROR_MEMORY_ALLOCATION
        if isinstance(error, torch.OutOfMemoryError) or full or NO_ENGINE in reason:
            raise OutOfMemory(f"{device} is out of memory, run smaller batches: {reason}") from error
        raise DeviceLost(f"{device} failed: {reason}") from error

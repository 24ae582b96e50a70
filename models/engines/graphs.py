"""The batch sizes that get a CUDA graph, and the GPU's stream on which graphs are captured and run."""

from contextlib import AbstractContextManager
from typing import Any, Protocol

import torch
from torch import Tensor

from models.engines.tensors import TensorForward
from models.measure import Clock
from models.measure_torch import CudaClock, cuda_memory

LADDER = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
"""Batch sizes that are captured: powers of two and the sizes halfway between, so that padding adds at most a half."""
WARM_UP_RUNS = 3
"""Runs before a capture. The first chooses cuDNN's kernels, which is not allowed while a stream is captured."""


def captured_size(size: int, largest: int) -> int:
    """Return the batch size that a batch of `size` is padded to, at most `largest`, the largest batch that is run."""
    return min(next((step for step in LADDER if step >= size), largest), largest)


class Plan(Protocol):
    """A way to run batches of one size: write into `pixels`, call the plan, read the logits that it returns."""

    pixels: Tensor
    """`[N, 3, S, S] uint8` on the device."""
    memory_kind: str

    def __call__(self) -> Tensor: ...

    @property
    def memory_bytes(self) -> int:
        """Bytes that the batch needs beyond the resident weights."""
        ...


class Stream(Protocol):
    """The operations that an engine asks of its device."""

    device: torch.device
    clock: Clock

    def current(self) -> AbstractContextManager[object]:
        """Return a context in which everything runs on this stream."""
        ...

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        """Allocate host memory that the device can copy from and to without the CPU."""
        ...

    def capture(self, forward: TensorForward, shape: tuple[int, ...]) -> Plan:
        """Record the function for pixels of one shape, after runs that choose the fastest kernels."""
        ...

    def direct(self, forward: TensorForward, shape: tuple[int, ...]) -> Plan:
        """Return a plan that calls the function, for a shape that was not captured."""
        ...

    def allocator(self) -> dict[str, int]:
        """Return the bytes of the caching allocator: `allocated` now, and `reserved` on the device."""
        ...


class CudaStream:
    """A new stream on one GPU. Its graphs share one memory pool, because they never run at the same time."""

    def __init__(self, device: torch.device, tf32: bool = False) -> None:
        torch.cuda.synchronize(device)  # the weights were copied on another stream
        self.device = device
        self._tf32 = tf32
        self._stream = torch.cuda.Stream(device)
        with self.current():
            self._pool = torch.cuda.graph_pool_handle()
            self.clock: Clock = CudaClock()

    def current(self) -> AbstractContextManager[object]:
        return torch.cuda.stream(self._stream)

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype, pin_memory=True)

    def capture(self, forward: TensorForward, shape: tuple[int, ...]) -> Plan:
        set_convolutions(self._tf32, search=True)
        return Graph(forward, shape, self._stream, self._pool)

    def direct(self, forward: TensorForward, shape: tuple[int, ...]) -> Plan:
        set_convolutions(self._tf32, search=False)
        return Direct(forward, shape, self.device)

    def allocator(self) -> dict[str, int]:
        memory = cuda_memory()
        return {"allocated": memory.allocated, "reserved": memory.reserved}


class Graph:
    """A captured function: one launch runs all of its kernels, on memory at fixed addresses."""

    memory_kind = "cuda_graph"

    def __init__(self, forward: TensorForward, shape: tuple[int, ...], stream: torch.cuda.Stream, pool: Any) -> None:
        self.pixels = torch.randint(256, shape, dtype=torch.uint8, device=stream.device)
        for _ in range(WARM_UP_RUNS):
            forward(self.pixels)
        stream.synchronize()
        self._graph = torch.cuda.CUDAGraph()
        torch.cuda.reset_peak_memory_stats(stream.device)
        before = torch.cuda.memory_allocated(stream.device)
        with torch.cuda.graph(self._graph, pool=pool, stream=stream):
            self._logits = forward(self.pixels)
        self.memory_bytes = torch.cuda.max_memory_allocated(stream.device) - before + self.pixels.nbytes
        self._graph.replay()  # the first launch uploads the graph
        stream.synchronize()

    def __call__(self) -> Tensor:
        self._graph.replay()
        return self._logits


class Direct:
    """A function that is called for every batch, without a graph."""

    memory_kind = "cuda_peak"

    def __init__(self, forward: TensorForward, shape: tuple[int, ...], device: torch.device) -> None:
        torch.cuda.reset_peak_memory_stats(device)
        self._forward = forward
        self._device = device
        self._before = torch.cuda.memory_allocated(device)
        self.pixels = torch.empty(shape, dtype=torch.uint8, device=device)

    def __call__(self) -> Tensor:
        return self._forward(self.pixels)

    @property
    def memory_bytes(self) -> int:
        return torch.cuda.max_memory_allocated(self._device) - self._before


def set_convolutions(tf32: bool, search: bool) -> None:
    """Set how cuDNN and cuBLAS compute FP32, and whether cuDNN times its kernels for a new shape to find the fastest.

    A shape is new until it ran in this thread: torch keeps the first kernel that it used, timed or not. The switches
    belong to the process, and other engines in it set them, too: call this before every use. A graph keeps the
    switches that were set when it was captured.
    """
    torch.backends.cudnn.benchmark = search
    torch.backends.cudnn.allow_tf32 = tf32  # older than fp32_precision; torch refuses to go on where they disagree
    torch.backends.cudnn.conv.fp32_precision = "tf32" if tf32 else "ieee"  # type: ignore[attr-defined]
    torch.backends.cuda.matmul.fp32_precision = "ieee"

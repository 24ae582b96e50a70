"""How a network function is driven on each kind of device: staging, timing, memory."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from models import measure
from models.engines.base import CLASS_COUNT, EngineCard, Execution, check_pixels
from models.variants import Variant

Forward = Callable[[Tensor], Tensor]
"""`[N, 3, S, S] uint8` on the device to `[N, 10] float32` on the device."""


def _shape(card: EngineCard) -> tuple[int, int, int]:
    return 3, card.input_size, card.input_size


class CpuEngine:
    """Runs a network function on the CPU, in the calling thread and torch's thread pool."""

    def __init__(self, variant: Variant, card: EngineCard, forward: Forward) -> None:
        self.variant = variant
        self.device = "cpu"
        self.card = card
        self._forward = forward
        self._clock = measure.HostClock()
        self.activation_peaks: dict[int, int] = {}
        self.allocator: dict[str, int] = {}

    @torch.inference_mode()
    def run(self, pixels: NDArray[np.uint8]) -> Execution:
        check_pixels(pixels, self.card.input_size)
        clock = self._clock
        clock.start()
        tensor = torch.from_numpy(pixels if pixels.flags.writeable else pixels.copy())
        clock.border()
        logits = self._forward(tensor)
        clock.border()
        array: NDArray[np.float32] = logits.numpy()
        cost = clock.stop()
        return Execution(array, *cost, self.activation_peaks.get(len(pixels), 0), "activation_peak")

    @torch.inference_mode()
    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        for size in sorted(set(batch_sizes), reverse=True):
            pixels = torch.zeros((size, *_shape(self.card)), dtype=torch.uint8)
            self._forward(pixels)
            peak = measure.activation_peak(lambda: self._forward(pixels))  # noqa: B023 - called at once
            self.activation_peaks[size] = peak


class CudaEngine:
    """Runs a network function on a GPU: pinned staging both ways, CUDA events between the phases."""

    def __init__(self, variant: Variant, card: EngineCard, forward: Forward) -> None:
        self.variant = variant
        self.device = card.device
        self.card = card
        self._device = torch.device(card.device)
        self._forward = forward
        self.activation_peaks: dict[int, int] = {}
        self.allocator: dict[str, int] = {}
        with torch.cuda.device(self._device):
            self._clock = measure.CudaClock()
        self._stage(1)

    def _stage(self, size: int) -> None:
        self._pixels_in = torch.empty((size, *_shape(self.card)), dtype=torch.uint8, pin_memory=True)
        self._logits_out = torch.empty((size, CLASS_COUNT), dtype=torch.float32, pin_memory=True)

    @torch.inference_mode()
    def run(self, pixels: NDArray[np.uint8]) -> Execution:
        check_pixels(pixels, self.card.input_size)
        size = len(pixels)
        if size > len(self._pixels_in):
            self._stage(size)
        staged, answer = self._pixels_in[:size], self._logits_out[:size]
        with torch.cuda.device(self._device):
            torch.cuda.reset_peak_memory_stats()
            resident = measure.cuda_memory().allocated
            self._clock.start()
            staged.numpy()[...] = pixels
            on_device = staged.to(self._device, non_blocking=True)
            self._clock.border()
            logits = self._forward(on_device)
            self._clock.border()
            answer.copy_(logits, non_blocking=True)
            cost = self._clock.stop()
            memory = measure.cuda_memory()
        self.allocator = {"allocated": resident, "reserved": memory.reserved}
        return Execution(answer.numpy().copy(), *cost, memory.peak - resident, "cuda_peak")

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        for size in sorted(set(batch_sizes), reverse=True):
            pixels = np.zeros((size, *_shape(self.card)), np.uint8)
            for _ in range(3):  # cuDNN chooses and loads its kernels in the first
                self.activation_peaks[size] = self.run(pixels).memory_bytes

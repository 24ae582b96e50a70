"""The engine that drives a network function on the CPU: timing, memory, checks."""

from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, repeat

import numpy as np
from numpy.typing import NDArray

from models import measure
from models.engines.base import EngineInfo, Execution, check_logits, check_pixels, image_shape, in_batches
from models.engines.function import ArrayFunction
from models.variants import Variant


class CpuEngine:
    """A network function on the CPU, run in the calling thread and the backend's thread pool.

    `shortest_seconds` maps a batch size to the shortest wall time of its batches so far.
    """

    def __init__(self, variant: Variant, info: EngineInfo, function: ArrayFunction) -> None:
        self.variant = variant
        self.device = "cpu"
        self.info = info
        self._function = function
        self._forward = function.forward
        self._clock = measure.HostClock()
        self.shortest_seconds: dict[int, float] = {}
        self.activation_peaks: dict[int, int] = {}
        self.allocator: dict[str, int] = {}

    def run(self, pixels: NDArray[np.uint8]) -> Execution:
        check_pixels(pixels, self.info.input_size)
        clock = self._clock
        clock.start()
        pixels = pixels if pixels.flags.writeable else pixels.copy()  # no backend takes a read-only array
        clock.border()
        logits = self._forward(pixels)
        clock.border()
        cost = clock.stop()
        check_logits(logits, self.variant.name)
        self.shortest_seconds[len(pixels)] = min(cost.wall, self.shortest_seconds.get(len(pixels), cost.wall))
        return Execution(logits, *cost, self.activation_peaks.get(len(pixels), 0), "activation_peak")

    def shapes(self, batch_sizes: Sequence[int]) -> list[int]:
        """Return the numbers of images that run at once in batches of these sizes, in ascending order."""
        return self._function.shapes(batch_sizes)

    def warm_up_on(self, pixels: NDArray[np.uint8], batch_sizes: Sequence[int]) -> NDArray[np.float32]:
        """Run images as the warm-up, and return their logits `[N, classes]`.

        Each shape runs once, then full batches run, whose first one measures the peak. `warm_up` does what is left
        where the images are too few. The largest shape is the first: smaller ones find its memory.
        """
        shapes, full = self.shapes(batch_sizes)[::-1], max(batch_sizes)
        logits: list[NDArray[np.float32]] = []
        for batch in in_batches(pixels, chain(shapes, repeat(full))):
            run = partial(self._run_into, logits, batch)
            if len(logits) >= len(shapes) and len(batch) == full and not self.activation_peaks:
                self._measure_peak(run, batch_sizes)
            else:
                run()
        return np.concatenate(logits)

    def _run_into(self, logits: list[NDArray[np.float32]], batch: NDArray[np.uint8]) -> None:
        logits.append(self.run(batch).logits)

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Run each shape that no batch had yet, and measure the peak of each size that has none."""
        shapes = self.shapes(batch_sizes)
        pixels = np.zeros((shapes[-1], *image_shape(self.info)), np.uint8)
        for size in set(shapes) - set(self.shapes(list(self.shortest_seconds))):
            self._forward(pixels[:size])
        if not self.activation_peaks.keys() >= set(batch_sizes):
            self._measure_peak(lambda: self._forward(pixels), batch_sizes)
        self._function.release()
        measure.release_unused()

    def _measure_peak(self, run_largest: Callable[[], object], batch_sizes: Sequence[int]) -> None:
        """Note the peak of a batch of the largest shape.

        The peaks of the others are in proportion, since every activation has an image as its unit.
        """
        largest = self.shapes(batch_sizes)[-1]
        peak = self._function.activation_peak(run_largest)
        self.activation_peaks |= {size: peak * min(size, largest) // largest for size in batch_sizes}

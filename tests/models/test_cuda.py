"""The GPU's engine on a stream that runs on the CPU: padding, staging, errors. test_gpu has the rest."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

import numpy as np
import pytest
import torch
from torch import Tensor

from models import cifar10
from models.engines.base import DeviceLost, EngineInfo, NonFiniteLogits, OutOfMemory
from models.engines.cpu import CpuEngine
from models.engines.gpu import CudaEngine
from models.engines.graphs import LADDER, captured_size
from models.engines.tensors import TensorFunction, array_function
from models.measure import HostClock
from models.variants import VARIANTS
from tests.models.conftest import Load

IMAGE_SHAPE = (3, 32, 32)


class CpuPlan:
    """A plan that runs the whole of `pixels`, padding included, as a graph does."""

    def __init__(self, forward: Callable[[Tensor], Tensor], shape: tuple[int, ...], kind: str) -> None:
        self.pixels = torch.full(shape, 255, dtype=torch.uint8)
        self.memory_bytes, self.memory_kind = shape[0], kind
        self._forward = forward

    def __call__(self) -> Tensor:
        return self._forward(self.pixels)


class CpuStream:
    """A stream on the CPU. It notes the sizes that were captured, and the sizes that ran without a graph."""

    def __init__(self) -> None:
        self.device, self.clock = torch.device("cpu"), HostClock()
        self.captured: list[int] = []
        self.direct_sizes: list[int] = []

    def current(self) -> AbstractContextManager[object]:
        return nullcontext()

    def pinned(self, shape: tuple[int, ...], dtype: torch.dtype) -> Tensor:
        return torch.empty(shape, dtype=dtype)

    def capture(self, forward: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> CpuPlan:
        self.captured.append(shape[0])
        return CpuPlan(forward, shape, "cuda_graph")

    def direct(self, forward: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> CpuPlan:
        self.direct_sizes.append(shape[0])
        return CpuPlan(forward, shape, "cuda_peak")

    def allocator(self) -> dict[str, int]:
        return {"allocated": 11_111, "reserved": 12_345}


def first_bytes(pixels: Tensor) -> Tensor:
    """Return the first ten bytes of each image as its logits."""
    return pixels.reshape(len(pixels), -1)[:, :10].float()


def engine(forward: Callable[[Tensor], Tensor], stream: CpuStream) -> CudaEngine:
    """Return a CudaEngine on the stream."""
    info = EngineInfo(
        **dict.fromkeys(EngineInfo.__dataclass_fields__, 0)
        | {"device": "cuda:0", "input_size": 32, "classes": cifar10.CLASSES, "notes": ("a note",)}
    )
    return CudaEngine(VARIANTS["fp16"], info, forward, stream)


def noise(count: int) -> np.ndarray:
    """Return random images; equal counts give equal images."""
    return np.random.default_rng(count).integers(0, 256, (count, *IMAGE_SHAPE), dtype=np.uint8)


def test_padding_adds_at_most_a_half() -> None:
    """Up to 1024 the captured size of a batch is at least the batch and at most half as large again."""
    assert list(LADDER) == sorted(set(LADDER))
    for size in range(1, 1025):
        assert size <= captured_size(size, 1024) <= size * 1.5


@pytest.mark.parametrize(
    ("size", "largest", "expected"), [(1, 32, 1), (5, 32, 6), (33, 40, 40), (7, 7, 7), (1500, 2000, 2000)]
)
def test_nothing_is_larger_than_the_largest_batch(size: int, largest: int, expected: int) -> None:
    """No batch is padded beyond the largest one, which is captured itself."""
    assert captured_size(size, largest) == expected


def test_a_warm_up_captures_few_sizes_the_largest_first() -> None:
    """Batches of 1 to 20 need nine graphs; a second warm-up captures only new sizes."""
    stream = CpuStream()
    warmed = engine(first_bytes, stream)
    warmed.warm_up(range(1, 21))
    assert stream.captured == [20, 16, 12, 8, 6, 4, 3, 2, 1]
    warmed.warm_up([16, 32])
    assert stream.captured[9:] == [32]
    assert warmed.info.notes[0] == "a note"
    assert "12,345 bytes stay reserved" in warmed.info.notes[1]
    assert warmed.allocator == {"allocated": 11_111, "reserved": 12_345}


def test_the_peak_of_a_padded_size_is_that_of_its_graph() -> None:
    """activation_peaks has every size that was warmed up, with the bytes of the graph that runs it."""
    warmed = engine(first_bytes, CpuStream())
    warmed.warm_up(range(1, 7))
    assert warmed.activation_peaks == {1: 1, 2: 2, 3: 3, 4: 4, 5: 6, 6: 6}


def test_a_padded_batch_gives_each_image_its_own_logits() -> None:
    """Neither the padding nor what an earlier batch left behind reaches an answer."""
    warmed = engine(first_bytes, CpuStream())
    warmed.warm_up(range(1, 9))
    for size in (8, 5, 1, 7, 3):
        pixels = noise(size)
        done = warmed.run(pixels)
        assert np.array_equal(done.logits, pixels.reshape(size, -1)[:, :10])
        assert (done.memory_kind, done.memory_bytes) == ("cuda_graph", captured_size(size, 8))


def test_a_size_that_was_not_warmed_up_runs_without_a_graph() -> None:
    """A batch of a size that was not warmed up runs without a graph, and its memory kind is `cuda_peak`."""
    stream = CpuStream()
    warmed = engine(first_bytes, stream)
    warmed.warm_up([4])
    pixels = noise(9)
    done = warmed.run(pixels)
    assert np.array_equal(done.logits, pixels.reshape(9, -1)[:, :10])
    assert (done.memory_kind, stream.direct_sizes) == ("cuda_peak", [9])


def test_an_answer_outlives_the_next_batch() -> None:
    """The next batch does not overwrite the logits of the last one."""
    warmed = engine(first_bytes, CpuStream())
    first = warmed.run(noise(2)).logits
    kept = first.copy()
    warmed.run(noise(3)[:2])
    assert np.array_equal(first, kept)


def test_the_phases_add_up() -> None:
    """copy_in, inference and copy_out add up to the whole call."""
    done = engine(first_bytes, CpuStream()).run(noise(2))
    assert done.copy_in_seconds + done.inference_seconds + done.copy_out_seconds == pytest.approx(done.wall_seconds)


def accelerator_error(code: int) -> RuntimeError:
    error = torch.AcceleratorError("CUDA error: told to\nSearch for the code")
    error.error_code = code
    return error


@pytest.mark.parametrize(
    ("raised", "expected", "text"),
    [
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB. GPU 0 has a capacity of 8 GiB"),
            OutOfMemory,
            r"cuda:0 is out of memory, run smaller batches: CUDA out of memory\. Tried to allocate 2\.00 GiB$",
        ),
        (accelerator_error(2), OutOfMemory, "out of memory"),
        (RuntimeError("FIND was unable to find an engine to execute this computation"), OutOfMemory, "FIND was unable"),
        (accelerator_error(700), DeviceLost, r"^cuda:0 failed: CUDA error: told to$"),
        (RuntimeError("cuDNN error: CUDNN_STATUS_EXECUTION_FAILED"), DeviceLost, "CUDNN_STATUS_EXECUTION_FAILED"),
    ],
    ids=["torch ran out", "CUDA ran out", "no workspace", "sticky", "cuDNN"],
)
def test_what_cuda_raises_has_a_type(raised: RuntimeError, expected: type[Exception], text: str) -> None:
    """An error that means out of memory is OutOfMemory, any other is DeviceLost, each in one sentence."""

    def forward(_: Tensor) -> Tensor:
        raise raised

    with pytest.raises(expected, match=text):
        engine(forward, CpuStream()).run(noise(1))


def test_an_engine_goes_on_after_a_batch_that_did_not_fit() -> None:
    """After an OutOfMemory the engine answers a smaller batch."""

    def forward(pixels: Tensor) -> Tensor:
        if len(pixels) > 4:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return first_bytes(pixels)

    small = engine(forward, CpuStream())
    with pytest.raises(OutOfMemory):
        small.run(noise(5))
    assert np.array_equal(small.run(noise(4)).logits, noise(4).reshape(4, -1)[:, :10])


def test_a_warm_up_that_did_not_fit_leaves_an_engine_that_runs() -> None:
    """After a warm-up that failed no graph is kept, answers are right, and a smaller warm-up works."""

    class SmallStream(CpuStream):
        def capture(self, forward: Callable[[Tensor], Tensor], shape: tuple[int, ...]) -> CpuPlan:
            if shape[0] > 512:
                raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
            return super().capture(forward, shape)

    stream = SmallStream()
    small = engine(first_bytes, stream)
    small.warm_up([4])
    with pytest.raises(OutOfMemory):
        small.warm_up([1024, 2])
    assert small.activation_peaks == {}
    assert np.array_equal(small.run(noise(4)).logits, noise(4).reshape(4, -1)[:, :10])
    assert stream.direct_sizes == [4]
    small.warm_up([512])
    assert stream.captured == [4, 512]
    assert small.activation_peaks == {512: 512}


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("kind", ["cuda", "cpu"])
def test_logits_that_are_no_numbers_are_an_error(kind: str, value: float, load: Load) -> None:
    """One logit that is not finite makes the batch an error."""

    def forward(pixels: Tensor) -> Tensor:
        logits = first_bytes(pixels)
        logits[1, 3] = value
        return logits

    info = load("fp32-cpu").info
    on_cpu = CpuEngine(VARIANTS["fp32-cpu"], info, array_function(TensorFunction(forward, [])))
    spoilt = engine(forward, CpuStream()) if kind == "cuda" else on_cpu
    with pytest.raises(NonFiniteLogits, match="not finite for 1 of 3 images"):
        spoilt.run(noise(3))


def test_the_padding_may_be_anything() -> None:
    """NaN in the logits of the padding is no error."""

    def forward(pixels: Tensor) -> Tensor:
        logits = first_bytes(pixels)
        logits[5:] = torch.nan
        return logits

    warmed = engine(forward, CpuStream())
    warmed.warm_up(range(1, 9))
    assert np.isfinite(warmed.run(noise(5)).logits).all()


def test_other_input_is_refused() -> None:
    """Wrong pixels are a ValueError, as on the CPU."""
    with pytest.raises(ValueError, match="pixels must"):
        engine(first_bytes, CpuStream()).run(np.zeros((1, 32, 32, 3), np.uint8))

"""What only a GPU can show: the engines' answers, their clocks and memory, and what happens when it is full."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch

from models import loading, nvml, selftest
from models.engines.base import Engine, EngineError, OutOfMemory
from models.engines.device import gpus
from models.variants import DEFAULT_GPU_BACKEND, GPU_BACKENDS, VariantUnavailable

pytestmark = [pytest.mark.gpu, pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores")]  # torch 2.11, Inductor

TOLERANCES = {"fp32": 2e-3, "fp32-tf32": 0.05, "fp16": 0.05, "bf16": 0.4}
"""Of a logit. TF32 and FP16 have 10 bits of mantissa, bf16 7; FP32 may be summed as Winograd does it."""
OPTIONAL = ("unable to find an engine", "C compiler", "gcc", "clang")
"""Why a backend that is not the default may be missing: cuDNN has no such kernel, torch.compile no compiler."""
LoadGpu = Callable[..., Engine]


@pytest.fixture(scope="module")
def load_gpu(checkpoint_path: Path) -> Iterator[LoadGpu]:
    """Gives a warmed-up engine for batches of up to 64, loaded once per variant and backend."""
    loaded: dict[tuple[str, str | None], Engine] = {}

    def get(name: str, backend: str | None = None) -> Engine:
        if (name, backend) not in loaded:
            try:
                engine = loading.load(name, device="cuda", checkpoint=checkpoint_path, gpu_backend=backend)
            except VariantUnavailable as reason:
                pytest.skip(str(reason))
            is_default = backend in (None, DEFAULT_GPU_BACKEND)
            try:
                engine.warm_up(range(1, 65) if is_default else (44, 64))  # a compiler takes long for each
            except EngineError as reason:
                if is_default or not any(words in str(reason) for words in OPTIONAL):
                    raise
                pytest.skip(f"{name}, {backend}: {reason}")
            loaded[name, backend] = engine
        return loaded[name, backend]

    yield get
    loaded.clear()


def in_batches(engine: Engine, images: np.ndarray, size: int) -> np.ndarray:
    return np.concatenate([engine.run(images[i : i + size]).logits for i in range(0, len(images), size)])


@pytest.mark.parametrize("size", [1, 5, 64, 300])
@pytest.mark.parametrize("name", TOLERANCES)
def test_logits_are_the_golden_ones(
    name: str, size: int, load_gpu: LoadGpu, images: np.ndarray, golden: np.ndarray
) -> None:
    """By a graph of the batch's size, padded, or without a graph (300): FP32 is FP32, the others within rounding."""
    assert np.abs(in_batches(load_gpu(name), images, size) - golden).max() < TOLERANCES[name]


def test_tf32_differs_from_fp32(load_gpu: LoadGpu, images: np.ndarray) -> None:
    """TF32 is on in the one and off in the other, although both live in one process."""
    if gpus()[0].capability < (8, 0):
        pytest.skip("TF32 needs compute capability 8.0")
    exact, rounded = load_gpu("fp32").run(images[:64]).logits, load_gpu("fp32-tf32").run(images[:64]).logits
    assert 1e-4 < np.abs(exact - rounded).max() < TOLERANCES["fp32-tf32"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", GPU_BACKENDS)
@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_every_backend_gives_the_golden_logits(
    name: str, backend: str, load_gpu: LoadGpu, images: np.ndarray, golden: np.ndarray
) -> None:
    """The ways to run the layers differ in speed only."""
    logits = in_batches(load_gpu(name, backend), images, 64)
    assert np.abs(logits - golden).max() < TOLERANCES[name]


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_the_same_batch_gives_the_same_logits(name: str, load_gpu: LoadGpu, images: np.ndarray) -> None:
    """To the bit, with other batch sizes in between: graphs share memory and do not disturb each other."""
    engine = load_gpu(name)
    first = engine.run(images[:7]).logits
    for size in (64, 1, 33):
        engine.run(images[64 : 64 + size])
    assert np.array_equal(engine.run(images[:7]).logits, first)


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_the_scales_of_a_gpu_agree(name: str, checkpoint_path: Path, images: np.ndarray) -> None:
    """Weights, what the allocator keeps, what the process has, what is used of the GPU: none is less than the last."""
    engine = loading.load(name, device="cuda", checkpoint=checkpoint_path)
    engine.warm_up([1, 64])
    engine.run(images[:64])
    if not (driver := nvml.memory(engine.info.device_uuid, os.getpid())):
        pytest.skip("the driver knows no GPU of this UUID")
    assert engine.info.parameter_bytes <= engine.allocator["allocated"] <= engine.allocator["reserved"]
    assert engine.allocator["reserved"] <= driver.get("process_gpu", driver["device_used"]) <= driver["device_used"]


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_a_graph_needs_what_the_batch_needs(name: str, checkpoint_path: Path, images: np.ndarray) -> None:
    """The peak that was measured at the capture is that of the same batch without a graph."""
    engine, direct = (loading.load(name, device="cuda", checkpoint=checkpoint_path) for _ in range(2))
    engine.warm_up([64])
    direct.run(images[:1])  # the workspace that its stream keeps is no batch's memory
    done = direct.run(images[:64])
    assert done.memory_kind == "cuda_peak"
    assert engine.activation_peaks[64] == pytest.approx(done.memory_bytes, rel=0.05)


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_every_batch_size_works(name: str, load_gpu: LoadGpu, images: np.ndarray, golden: np.ndarray) -> None:
    """Batches of 1 to 66, in falling order, so that every padded one finds the rest of a larger one."""
    for size in range(66, 0, -1):
        found = load_gpu(name).run(images[:size]).logits
        assert np.abs(found - golden[:size]).max() < TOLERANCES[name], size


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_the_clocks_agree(name: str, load_gpu: LoadGpu) -> None:
    """The device's clock never shows more than the host's, nor much less."""
    assert 0.3 < selftest.clock_ratio(load_gpu(name)) < 1.02


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_memory_is_that_of_the_graph(name: str, load_gpu: LoadGpu, images: np.ndarray) -> None:
    """A batch of 64 needs at least its widest layer's input and output; 63 are padded to the same; 1 needs less."""
    engine = load_gpu(name)
    full, padded, small = (engine.run(images[:size]) for size in (64, 63, 1))
    width = 4 if name == "fp32" else 2
    assert full.memory_kind == "cuda_graph"
    assert full.memory_bytes >= 2 * 64 * 64 * 32 * 32 * width
    assert padded.memory_bytes == full.memory_bytes > small.memory_bytes > 0


def test_memory_without_a_graph_is_of_the_batch(load_gpu: LoadGpu, images: np.ndarray) -> None:
    """A size that was not warmed up is measured while it runs."""
    done = load_gpu("fp16").run(images[:100])
    assert done.memory_kind == "cuda_peak"
    assert done.memory_bytes >= 2 * 100 * 64 * 32 * 32 * 2


def test_nothing_is_allocated_once_warmed_up(load_gpu: LoadGpu, images: np.ndarray) -> None:
    """A hundred batches leave the allocator as it was."""
    engine = load_gpu("fp16")
    engine.run(images[:64])
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    for size in range(1, 65):
        engine.run(images[:size])
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before


def test_logits_outlive_the_next_run(load_gpu: LoadGpu, images: np.ndarray) -> None:
    """What a run gave is not overwritten by the next, though both pass the same pinned buffer."""
    first = load_gpu("fp16").run(images[:8]).logits
    kept = first.copy()
    load_gpu("fp16").run(images[8:16])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_the_self_test_passes(name: str, load_gpu: LoadGpu, checkpoint_path: Path) -> None:
    """On graphs, as the service does it."""
    assert selftest.agreement(load_gpu(name), checkpoint_path) >= selftest.MINIMUM_AGREEMENT[name]


def test_the_card_describes_the_gpu(load_gpu: LoadGpu) -> None:
    """Compute capability, tensor cores, memory, what FP32 means, and which graphs there are."""
    card, first = load_gpu("fp32").info, gpus()[0]
    assert (card.isa, card.device, card.device_name) == (first.isa, "cuda:0", first.name)
    assert (card.tensor_cores, card.device_memory_bytes) == (first.has_tensor_cores, first.memory_bytes)
    assert card.notes[0] == "TF32 off"
    assert card.notes[1].startswith("CUDA graphs for 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64 images")


def test_a_full_gpu_is_out_of_memory_and_goes_on(checkpoint_path: Path, images: np.ndarray, golden: np.ndarray) -> None:
    """A batch that does not fit is an OutOfMemory; the next one, smaller, is answered."""
    engine = loading.load("fp32", device="cuda", checkpoint=checkpoint_path)
    engine.run(images[:1])
    torch.cuda.empty_cache()
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + 2**28) / total)
    try:
        with pytest.raises(OutOfMemory, match=r"cuda:0 is out of memory, run smaller batches"):
            engine.run(np.zeros((4096, 3, 32, 32), np.uint8))
        assert np.abs(engine.run(images[:8]).logits - golden[:8]).max() < TOLERANCES["fp32"]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)


@pytest.mark.slow
def test_a_device_side_fault_is_a_lost_device() -> None:
    """An illegal access makes every later call fail: DeviceLost, seen in a process of its own."""
    code = """
import contextlib
import numpy as np, torch
from models import loading
from models.engines.base import DeviceLost
engine = loading.load("fp16", device="cuda")
engine.warm_up([1])
pixels = np.zeros((1, 3, 32, 32), np.uint8)
engine.run(pixels)
with contextlib.suppress(RuntimeError):
    torch.zeros(1, device="cuda")[torch.tensor([10], device="cuda")]  # out of bounds, which the kernel finds
    torch.cuda.synchronize()
for _ in range(2):
    try:
        engine.run(pixels)
    except DeviceLost as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.count("cuda:0 failed: ") == 2, done.stderr

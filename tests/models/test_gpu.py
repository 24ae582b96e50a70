"""Facts that only a GPU shows: the engines' answers, their clocks and memory, and a full GPU."""

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
from models.variants import DEFAULT_GPU_BACKEND, GPU_BACKENDS, VARIANTS, VariantUnavailable

pytestmark = [
    pytest.mark.gpu,
    # torch 2.11's Inductor
    pytest.mark.filterwarnings("ignore:TensorFloat32 tensor cores"),
    pytest.mark.filterwarnings("ignore:.torch.jit.script_method. is deprecated"),
]

TOLERANCES = {"fp32": 2e-3, "fp32-tf32": 0.05, "fp16": 0.05, "bf16": 0.4}
"""Largest error of a logit. TF32 and FP16 have 10 bits of mantissa, bf16 7; FP32 may use Winograd's convolutions."""
OPTIONAL = ("unable to find an engine", "C compiler", "gcc", "clang")
"""Errors that excuse a backend other than the default: cuDNN has no such kernel, or torch.compile no compiler."""
LoadGpu = Callable[..., Engine]


@pytest.fixture(scope="module")
def load_gpu(checkpoint_path: Path) -> Iterator[LoadGpu]:
    """Return a function that gives an engine warmed up for batches of up to 64, loaded once per variant and backend."""
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
    """Return the logits of the images, run in batches of `size`."""
    return np.concatenate([engine.run(images[i : i + size]).logits for i in range(0, len(images), size)])


@pytest.mark.parametrize("size", [1, 5, 64, 300])
@pytest.mark.parametrize("name", TOLERANCES)
def test_logits_are_the_golden_ones(
    name: str, size: int, load_gpu: LoadGpu, images: np.ndarray, golden: np.ndarray
) -> None:
    """Logits differ from the reference by rounding only, with a graph of the batch's size, padded, or without (300)."""
    assert np.abs(in_batches(load_gpu(name), images, size) - golden).max() < TOLERANCES[name]


def test_tf32_differs_from_fp32(load_gpu: LoadGpu, images: np.ndarray) -> None:
    """In one process TF32 is on for fp32-tf32 and off for fp32."""
    if gpus()[0].capability < (8, 0):
        pytest.skip("TF32 needs compute capability 8.0")
    exact, rounded = load_gpu("fp32").run(images[:64]).logits, load_gpu("fp32-tf32").run(images[:64]).logits
    assert 1e-4 < np.abs(exact - rounded).max() < TOLERANCES["fp32-tf32"]


@pytest.mark.slow
@pytest.mark.parametrize("backend", GPU_BACKENDS)
@pytest.mark.parametrize("name", ["fp32", "fp16", "bf16"])
def test_every_backend_gives_the_golden_logits(
    name: str, backend: str, load_gpu: LoadGpu, images: np.ndarray, golden: np.ndarray
) -> None:
    """Every GPU backend gives the reference logits."""
    logits = in_batches(load_gpu(name, backend), images, 64)
    assert np.abs(logits - golden).max() < TOLERANCES[name]


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_the_same_batch_gives_the_same_logits(name: str, load_gpu: LoadGpu, images: np.ndarray) -> None:
    """Two runs of a batch give equal bits, although graphs of other sizes run between them in the same memory."""
    engine = load_gpu(name)
    first = engine.run(images[:7]).logits
    for size in (64, 1, 33):
        engine.run(images[64 : 64 + size])
    assert np.array_equal(engine.run(images[:7]).logits, first)


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_the_scales_of_a_gpu_agree(name: str, checkpoint_path: Path, images: np.ndarray) -> None:
    """Weights, the allocator's bytes, the process's and the GPU's: none is less than the one before."""
    engine = loading.load(name, device="cuda", checkpoint=checkpoint_path)
    engine.warm_up([1, 64])
    engine.run(images[:64])
    if not (driver := nvml.memory(engine.info.device_uuid, os.getpid())):
        pytest.skip("the driver knows no GPU of this UUID")
    assert engine.info.parameter_bytes <= engine.allocator["allocated"] <= engine.allocator["reserved"]
    assert engine.allocator["reserved"] <= driver.get("process_gpu", driver["device_used"]) <= driver["device_used"]


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_a_graph_needs_what_the_batch_needs(name: str, checkpoint_path: Path, images: np.ndarray) -> None:
    """The peak measured at the capture is the peak of the same batch without a graph."""
    engine, direct = (loading.load(name, device="cuda", checkpoint=checkpoint_path) for _ in range(2))
    engine.warm_up([64])
    direct.run(images[:1])  # so that the workspace of its stream exists already
    done = direct.run(images[:64])
    assert done.memory_kind == "cuda_peak"
    assert engine.activation_peaks[64] == pytest.approx(done.memory_bytes, rel=0.05)


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_every_batch_size_works(name: str, load_gpu: LoadGpu, images: np.ndarray, golden: np.ndarray) -> None:
    """Batches of 66 to 1 give the reference logits, although each padding holds images of a larger batch."""
    for size in range(66, 0, -1):
        found = load_gpu(name).run(images[:size]).logits
        assert np.abs(found - golden[:size]).max() < TOLERANCES[name], size


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_the_clocks_agree(name: str, load_gpu: LoadGpu) -> None:
    """The device's clock shows at most the host's time, and not much less."""
    assert 0.3 < selftest.clock_ratio(load_gpu(name)) < 1.02


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_memory_is_that_of_the_graph(name: str, load_gpu: LoadGpu, images: np.ndarray) -> None:
    """A batch of 64 needs at least its widest layer's input and output; 63 images need the same, 1 image less."""
    engine = load_gpu(name)
    full, padded, small = (engine.run(images[:size]) for size in (64, 63, 1))
    width = 4 if name == "fp32" else 2
    assert full.memory_kind == "cuda_graph"
    assert full.memory_bytes >= 2 * 64 * 64 * 32 * 32 * width
    assert padded.memory_bytes == full.memory_bytes > small.memory_bytes > 0


def test_memory_without_a_graph_is_of_the_batch(load_gpu: LoadGpu, images: np.ndarray) -> None:
    """The memory of a size that was not warmed up is measured while it runs."""
    done = load_gpu("fp16").run(images[:100])
    assert done.memory_kind == "cuda_peak"
    assert done.memory_bytes >= 2 * 100 * 64 * 32 * 32 * 2


def test_nothing_is_allocated_once_warmed_up(load_gpu: LoadGpu, images: np.ndarray) -> None:
    """After warm-up, batches of 1 to 64 allocate nothing on the GPU."""
    engine = load_gpu("fp16")
    engine.run(images[:64])
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    for size in range(1, 65):
        engine.run(images[:size])
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before


def test_logits_outlive_the_next_run(load_gpu: LoadGpu, images: np.ndarray) -> None:
    """The next run does not overwrite the logits of the last one."""
    first = load_gpu("fp16").run(images[:8]).logits
    kept = first.copy()
    load_gpu("fp16").run(images[8:16])
    assert np.array_equal(first, kept)


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_the_self_test_passes(name: str, load_gpu: LoadGpu, checkpoint_path: Path) -> None:
    """The engine passes the self-test on its graphs."""
    assert selftest.examine(load_gpu(name), checkpoint_path).agreement >= VARIANTS[name].least_agreement


def test_the_info_describes_the_gpu(load_gpu: LoadGpu) -> None:
    """The info has the GPU's capability, tensor cores and memory, and notes on TF32 and the graphs."""
    info, first = load_gpu("fp32").info, gpus()[0]
    assert (info.isa, info.device, info.device_name) == (first.isa, "cuda:0", first.name)
    assert (info.tensor_cores, info.device_memory_bytes) == (first.has_tensor_cores, first.memory_bytes)
    assert info.notes[0] == "TF32 off"
    assert info.notes[1].startswith("CUDA graphs for 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64 images")


def test_a_full_gpu_is_out_of_memory_and_goes_on(checkpoint_path: Path, images: np.ndarray, golden: np.ndarray) -> None:
    """A batch that does not fit is OutOfMemory, and the engine answers a smaller one afterwards."""
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
    """After an illegal access every call is DeviceLost; the test needs a process of its own."""
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
    torch.zeros(1, device="cuda")[torch.tensor([10], device="cuda")]  # out of bounds, which only the kernel notices
    torch.cuda.synchronize()
for _ in range(2):
    try:
        engine.run(pixels)
    except DeviceLost as error:
        print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout.count("cuda:0 failed: ") == 2, done.stderr

"""The CUDA engines against the golden logits of the plain network on the CPU."""

import os
from pathlib import Path

import numpy as np
import pytest

from models import gpu, selftest, variants

pytestmark = pytest.mark.gpu


@pytest.mark.parametrize(("name", "tolerance"), [("fp32", 1e-3), ("fp16", 0.05)])
def test_logits_are_the_golden_ones(
    name: str, tolerance: float, checkpoint_path: Path, images: np.ndarray, golden: np.ndarray
) -> None:
    """FP32 on a GPU is FP32 (TF32 would be off by more than 1e-3), FP16 within its rounding."""
    engine = variants.load(name, device="cuda", checkpoint=checkpoint_path)
    assert np.abs(engine.run(images).logits - golden).max() < tolerance


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_a_run_is_measured_on_the_device(name: str, checkpoint_path: Path, images: np.ndarray) -> None:
    """Phases come from the device, lie within the wall clock, and the batch's peak memory is its own."""
    engine = variants.load(name, device="cuda", checkpoint=checkpoint_path)
    engine.warm_up([1, 64])
    small, large = engine.run(images[:1]), engine.run(images[:64])
    assert 0 < large.inference_seconds < large.wall_seconds
    assert large.memory_kind == "cuda_peak"
    assert 0 < small.memory_bytes < large.memory_bytes


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_the_scales_of_a_gpu_agree(name: str, checkpoint_path: Path, images: np.ndarray) -> None:
    """Weights, what the allocator keeps, what the process has, what is used of the GPU: none is less than the last."""
    engine = variants.load(name, device="cuda", checkpoint=checkpoint_path)
    engine.warm_up([1, 64])
    peak = engine.run(images[:64]).memory_bytes
    driver = gpu.memory(engine.card.device_uuid, os.getpid())
    assert engine.card.parameter_bytes <= engine.allocator["allocated"] <= engine.allocator["reserved"]
    assert engine.allocator["reserved"] <= driver.get("process_gpu", driver["device_used"]) <= driver["device_used"]
    assert engine.activation_peaks[64] == pytest.approx(peak, rel=0.05)


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_events_and_wall_clock_agree(name: str, checkpoint_path: Path) -> None:
    """The device's clock never shows more than the host's, nor much less."""
    engine = variants.load(name, device="cuda", checkpoint=checkpoint_path)
    engine.warm_up([selftest.BATCH_SIZE])
    assert 0.3 < selftest.clock_ratio(engine) < 1.02


@pytest.mark.parametrize("name", ["fp32", "fp16"])
def test_logits_outlive_the_next_run(name: str, checkpoint_path: Path, images: np.ndarray) -> None:
    """What a run gave is not overwritten by the next, though both pass the same pinned buffer."""
    engine = variants.load(name, device="cuda", checkpoint=checkpoint_path)
    first = engine.run(images[:8]).logits
    kept = first.copy()
    engine.run(images[8:16])
    assert np.array_equal(first, kept)

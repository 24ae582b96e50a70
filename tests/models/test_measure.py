"""The clocks and scales against known times and sizes."""

import gc

import numpy as np
import pytest
import torch

from models import measure, measure_torch


def test_the_peak_is_what_was_alive_at_once() -> None:
    """Of three tensors made in turn, two alive at a time, the peak is two."""

    def forward() -> torch.Tensor:
        x = torch.zeros(1000)
        for _ in range(2):
            x = x.neg()
        return x

    assert measure_torch.activation_peak(forward) == 2 * 4000


def test_what_was_there_before_does_not_count() -> None:
    """A function that allocates nothing has a peak of 0."""
    kept = torch.zeros(1000)
    assert measure_torch.activation_peak(kept.zero_) == 0


def test_growth_is_what_is_still_held() -> None:
    """Of two arrays that a function makes only the kept one counts, in bytes."""
    kept = []

    def run() -> None:
        np.ones(60_000_000, np.uint8)
        kept.append(np.ones(20_000_000, np.uint8))

    gc.collect()  # else garbage of other tests would be freed meanwhile
    assert measure.growth(run) == pytest.approx(20_000_000, rel=0.05)


def test_packed_weights_are_weighed() -> None:
    """Weights packed by oneDNN have at least the bytes of the plain ones."""
    weight = torch.zeros(64, 64, 3, 3)
    packed = torch.ops.mkldnn._reorder_convolution_weight(weight, [1, 1], [1, 1], [1, 1], 1, [1, 64, 32, 32])
    assert measure_torch.nbytes([packed]) >= weight.nbytes
    assert measure_torch.nbytes([weight, torch.zeros(2, dtype=torch.uint8)]) == weight.nbytes + 2


def test_the_clock_splits_a_call_into_phases() -> None:
    """The phases are the times between the borders and add up to the wall clock."""
    clock = measure.HostClock()
    clock.start()
    clock.border()
    torch.zeros(100_000).sum()
    clock.border()
    phases = clock.stop()
    assert phases.inference > 0
    assert abs(phases.copy_in + phases.inference + phases.copy_out - phases.wall) < 1e-9

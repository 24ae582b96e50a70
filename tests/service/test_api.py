"""Why a worker has no engine: the machine lacks something (`unavailable`) or something is broken (`failed`)."""

import pytest
import torch

from service import logs
from service.settings import Settings
from service.workers.api import PrecisionAPI, gpu_fault
from service.workers.status import Refusal, State


@pytest.fixture(autouse=True)
def without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """Hide GPUs from torch, and leave the log to pytest."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(logs, "configure", lambda level: None)


def refusal(variant: str, device: str) -> Refusal:
    """Return why the variant has no engine on the device."""
    api = PrecisionAPI(variant, Settings())
    api.setup(device)
    assert api.refusal is not None
    return api.refusal


@pytest.mark.parametrize(
    ("cuda", "why"), [(None, "it is a build for the CPU"), ("13.0", "the driver is too old for CUDA 13.0, or")]
)
@pytest.mark.parametrize("variant", ["fp32", "fp16"])
def test_a_gpu_that_torch_cannot_use_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, variant: str, cuda: str | None, why: str
) -> None:
    """The driver counted the GPU, so the variant is `failed`; the reason names torch and a way out."""
    monkeypatch.setattr(torch.version, "cuda", cuda)
    answer = refusal(variant, "cuda:0")
    assert answer.state == State.FAILED
    assert answer.reason.startswith(
        f"torch {torch.__version__} cannot use cuda:0, a GPU that the driver counted: {why}"
    )
    assert "CUDA_VISIBLE_DEVICES" in answer.reason


def test_a_machine_without_gpu_cannot_run_fp16() -> None:
    """Neither the driver nor torch counts a GPU: nothing is broken, the variant is `unavailable`."""
    answer = refusal("fp16", "")
    assert answer.state == State.UNAVAILABLE
    assert "needs a CUDA GPU" in answer.reason


@pytest.mark.parametrize(("place", "is_fault"), [("cuda:0", False), ("cuda:1", False), ("cuda:2", True)])
def test_a_gpu_that_torch_counts_is_no_fault(monkeypatch: pytest.MonkeyPatch, place: str, is_fault: bool) -> None:
    """Torch counts two of three GPUs: only the third is a fault."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert bool(gpu_fault(place)) == is_fault

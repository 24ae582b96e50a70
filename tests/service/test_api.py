"""Why a worker has no engine: what the machine lacks is `unavailable`, what is broken is `failed`."""

import pytest
import torch

from service import logs
from service.settings import Settings
from service.workers.api import PrecisionAPI, gpu_fault


@pytest.fixture(autouse=True)
def without_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """What torch sees; the log is pytest's."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(logs, "configure", lambda level: None)


def refusal(variant: str, device: str) -> dict[str, str] | None:
    api = PrecisionAPI(variant, Settings())
    api.setup(device)
    return api.refusal


@pytest.mark.parametrize(
    ("cuda", "why"), [(None, "it is a build for the CPU"), ("13.0", "the driver is too old for CUDA 13.0, or")]
)
@pytest.mark.parametrize("variant", ["fp32", "fp16"])
def test_a_gpu_that_torch_cannot_use_is_a_fault(
    monkeypatch: pytest.MonkeyPatch, variant: str, cuda: str | None, why: str
) -> None:
    """The driver counted one, or the worker would not have been sent there; the reason names torch and the way out."""
    monkeypatch.setattr(torch.version, "cuda", cuda)
    answer = refusal(variant, "cuda:0")
    assert answer is not None
    assert answer["state"] == "failed"
    assert answer["reason"].startswith(
        f"torch {torch.__version__} cannot use cuda:0, a GPU that the driver counted: {why}"
    )
    assert "CUDA_VISIBLE_DEVICES" in answer["reason"]


def test_a_machine_without_gpu_cannot_run_fp16() -> None:
    """No GPU to the driver, none to torch: nothing is broken."""
    answer = refusal("fp16", "")
    assert answer is not None
    assert (answer["state"], "needs a CUDA GPU" in answer["reason"]) == ("unavailable", True)


@pytest.mark.parametrize(("place", "is_fault"), [("cuda:0", False), ("cuda:1", False), ("cuda:2", True)])
def test_a_gpu_that_torch_counts_is_none(monkeypatch: pytest.MonkeyPatch, place: str, is_fault: bool) -> None:
    """Two of three GPUs are left: a variant that one of them is too old for is `unavailable`, as ever."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert bool(gpu_fault(place)) == is_fault

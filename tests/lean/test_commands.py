"""Commands where torch is not installed: each works, or ends with a sentence that says how to install it."""

import subprocess
import sys
from pathlib import Path

import pynvml
import pytest

from models import needs, nvml
from tests.service.processes import ROOT


def run(*command: str) -> subprocess.CompletedProcess[str]:
    """Run `python -m COMMAND` and return what became of it."""
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
    )


@pytest.mark.parametrize("module", ["service", "loadtest", "models.evaluate", "models.quantize", "models.sample"])
def test_a_command_that_needs_no_torch_shows_its_help(module: str) -> None:
    """Everything that these commands import is installed."""
    done = run(module, "--help")
    assert (done.returncode, done.stderr) == (0, "")


def test_training_says_that_it_needs_torch() -> None:
    """The command ends with one sentence, not with a traceback."""
    done = run("models.train")
    assert (done.returncode, done.stderr) == (1, f"error: python -m models.train needs torch, {needs.MISSING}\n")


def test_the_download_of_the_data_set_says_so(tmp_path: Path) -> None:
    """torchvision downloads CIFAR-10."""
    done = run("models.cifar10", "--root", str(tmp_path))
    assert (done.returncode, done.stderr) == (1, f"error: the download of CIFAR-10 needs torch, {needs.MISSING}\n")


def test_no_gpu_counts_without_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only torch runs variants on a GPU, so the service leaves `fp32` to the CPU if it is missing."""
    monkeypatch.setattr(pynvml, "nvmlInit", lambda: None)
    monkeypatch.setattr(pynvml, "nvmlDeviceGetCount", lambda: 2)
    assert nvml.count() == 0

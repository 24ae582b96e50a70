"""The self-test accepts good engines and refuses broken ones."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from models import reference, selftest
from models.selftest import SelfTestFailed
from models.variants import VARIANTS
from tests.models.conftest import ON_CPU, SLOW, Load, Spoilt


@pytest.mark.parametrize("name", [name for name in ON_CPU if name not in SLOW])
def test_a_good_engine_passes(name: str, load: Load, checkpoint_path: Path) -> None:
    """Every variant of the CPU passes, with an agreement between its least one and 1."""
    assert VARIANTS[name].least_agreement <= selftest.examine(load(name), checkpoint_path).agreement <= 1


def test_wrong_answers_fail(load: Load, checkpoint_path: Path) -> None:
    """An engine whose classes are shifted by one fails, and the error names its agreement."""
    engine = Spoilt(load("int8"), lambda logits: np.roll(logits, 1, axis=1))
    with pytest.raises(SelfTestFailed, match=r"int8 agrees with the FP32 reference on \d+.\d% of the sample"):
        selftest.examine(engine, checkpoint_path)


def test_infinite_logits_fail(load: Load, checkpoint_path: Path) -> None:
    """An engine with infinite logits fails although its classes are right."""
    engine = Spoilt(load("int8"), lambda logits: np.where(logits == logits.max(1, keepdims=True), np.inf, logits))
    with pytest.raises(SelfTestFailed, match="not finite"):
        selftest.examine(engine, checkpoint_path)


def test_another_checkpoints_logits_are_no_reference(checkpoint_path: Path, tmp_path: Path) -> None:
    """Reference logits of another checkpoint, or none, are an error that names the command to run."""
    with pytest.raises(SelfTestFailed, match="belongs to the checkpoint"):
        reference.reference(checkpoint_path, "0" * 64)
    with pytest.raises(SelfTestFailed, match=r"is missing: .*python -m models.sample"):
        reference.reference(tmp_path / "none.safetensors", "0" * 64)


def test_no_warning_reaches_a_user(checkpoint_path: Path) -> None:
    """Loading and warming up every variant on the CPU, and testing int8, prints nothing, also under `-W error`."""
    code = f"""
from pathlib import Path
from models import loading, selftest
path = Path({str(checkpoint_path)!r})
for name in {ON_CPU!r}:
    engine = loading.load(name, device="cpu", threads=1, checkpoint=path)
    engine.warm_up([1, 2])
    if name == "int8":
        selftest.examine(engine, path)
"""
    done = subprocess.run([sys.executable, "-W", "error", "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")

"""Serving on a CPU where torch is not installed: the service with its bundled weights, and weights of other kinds."""

import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from models import cifar10, files, needs
from models.card import read_card
from models.reference import reference
from tests.service.processes import ROOT, Service, running

WITHOUT_TORCH = ("fp32", "int8", "int8-dynamic")
NEED_TORCH = ("fp16", "bf16")
QUICK = ("--max-batch-size", "4", "--threads", "1")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    with running("--variants", ",".join((*WITHOUT_TORCH, *NEED_TORCH)), *QUICK) as service:
        yield service


def test_torch_is_not_installed() -> None:
    """This part of the suite proves something only in an environment that `make test-lean` sets up."""
    assert [name for name in ("torch", "torchvision") if find_spec(name)] == []


@pytest.mark.parametrize("variant", WITHOUT_TORCH)
def test_a_png_is_classified(service: Service, variant: str) -> None:
    """The picture of a cat is one for each precision."""
    png = (ROOT / "docs" / "cat.png").read_bytes()
    answer = service.client.post(f"/predict/{variant}", content=png, headers={"content-type": "image/png"})
    assert answer.status_code == 200
    assert answer.json()["predictions"][0]["label"] == "cat"


@pytest.mark.parametrize(("variant", "tolerance"), [("fp32", 1e-3), ("int8", 1.5), ("int8-dynamic", 0.5)])
def test_logits_are_those_of_torch(service: Service, variant: str, tolerance: float) -> None:
    """The logits of 64 sample images, beside those that torchvision's network gave when they were stored."""
    images = cifar10.sample()[0][:64]
    raw = {"content-type": "application/octet-stream"}
    answer = service.client.post(f"/predict/{variant}?logits=true", content=images.tobytes(), headers=raw)
    expected = reference(None, read_card().sha256)[:64]
    differences = [
        abs(logit - wanted)
        for prediction, row in zip(answer.json()["predictions"], expected, strict=True)
        for logit, wanted in zip(prediction["logits"], row, strict=True)
    ]
    assert max(differences) < tolerance


@pytest.mark.parametrize("variant", NEED_TORCH)
def test_a_variant_that_needs_torch_says_how_to_install_it(service: Service, variant: str) -> None:
    """/variants has the reason, and a request for the variant is refused with it."""
    cards = {card["name"]: card for card in service.client.get("/variants").json()["variants"]}
    assert cards[variant]["state"] == "unavailable"
    assert cards[variant]["reason"].endswith(needs.INSTALL)
    refused = service.client.post(f"/predict/{variant}", content=b"", headers={"content-type": "image/png"})
    assert refused.status_code == 503
    assert needs.INSTALL in refused.json()["detail"]


def test_metrics_tell_what_is_ready(service: Service) -> None:
    """/metrics answers, with a ready variant for each that needs no torch."""
    ready = {name: service.sample("precision_variant_ready", variant=name) for name in (*WITHOUT_TORCH, *NEED_TORCH)}
    assert ready == dict.fromkeys(WITHOUT_TORCH, 1.0) | dict.fromkeys(NEED_TORCH, 0.0)


def test_own_safetensors_are_served(tmp_path: Path) -> None:
    """Weights without derived files are served: INT8 is calibrated, and the self-test gets reference logits."""
    path = shutil.copy(files.default_path(), tmp_path / "own.safetensors")
    with running("--variants", "int8", *QUICK, "--checkpoint", str(path)) as service:
        assert service.state("int8") == "ready"


def test_a_damaged_checkpoint_of_torch_stops_the_start(tmp_path: Path) -> None:
    """A .pt file is read without torch; a damaged one ends the start with a sentence."""
    path = tmp_path / "own.pt"
    path.write_bytes(b"what torch.save writes")
    command = [sys.executable, "-m", "service", "--port", "0", "--variants", "fp32", "--checkpoint", str(path)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 1
    assert re.match(r"error: .*own\.pt is no state dict", done.stderr)

"""Checkpoints: written, verified at load, and refused with errors that say what to do."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from models import checkpoint, files, loading
from models.card import Card
from models.files import CheckpointError
from tests.models.conftest import ON_CPU


@pytest.fixture
def copy(tmp_path: Path) -> Path:
    """Return a small checkpoint with its card."""
    torch.manual_seed(0)
    path = tmp_path / "small.safetensors"
    about = {"command": "c", "recipe": {"epochs": 1}, "seed": 0, "epochs": 1, "hardware": "h", "training_seconds": 1}
    card = Card(**about, test_accuracy=0.5, test_images=2, torch="t", date="d")
    checkpoint.save(torch.nn.Linear(3, 2), path, card)
    return path


def test_the_checkpoint_in_use_is_good(checkpoint_path: Path) -> None:
    """The checkpoint under test matches its card, which has its command and its accuracy."""
    state, card = checkpoint.load(checkpoint_path)
    assert card.bytes == checkpoint_path.stat().st_size
    assert state["fc.weight"].shape == (10, 512)
    assert card.command
    assert 0 <= card.test_accuracy <= 1


def test_what_was_saved_is_loaded(copy: Path) -> None:
    """`load` returns what `save` wrote, the card completed with the file's size and SHA-256."""
    torch.manual_seed(0)
    state, card = checkpoint.load(copy)
    assert np.array_equal(state["weight"], torch.nn.Linear(3, 2).weight.detach().numpy())
    assert card.sha256 == files.sha256(copy.read_bytes())
    assert card.bytes == copy.stat().st_size
    assert (card.recipe, card.classes[3]) == ({"epochs": 1}, "cat")


def test_a_flipped_bit_is_noticed(copy: Path) -> None:
    """One changed bit in the weights is an error that names both hashes."""
    data = bytearray(copy.read_bytes())
    data[-5] ^= 1
    copy.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"small.safetensors .* is damaged .* SHA-256 [0-9a-f]{64}, expected"):
        checkpoint.load(copy)


def test_a_truncated_file_is_noticed(copy: Path) -> None:
    """A truncated file does not load."""
    copy.write_bytes(copy.read_bytes()[:-1])
    with pytest.raises(CheckpointError, match="is damaged"):
        checkpoint.load(copy)


def test_a_file_that_is_no_checkpoint_is_refused(copy: Path) -> None:
    """A pickle named .safetensors, with its hash on the card, is an error and is not unpickled."""
    copy.write_bytes(b"\x80\x04]\x94.")
    card = json.loads(copy.with_suffix(".json").read_text()) | {"sha256": files.sha256(copy.read_bytes())}
    copy.with_suffix(".json").write_text(json.dumps(card))
    with pytest.raises(CheckpointError, match="not a safetensors file"):
        checkpoint.load(copy)


@pytest.mark.parametrize("missing", ["small.safetensors", "small.json"])
def test_a_missing_file_says_what_to_do(copy: Path, missing: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Missing weights, or a missing bundled card, are an error that names the file and what to do."""
    monkeypatch.setattr("models.card.BUNDLED", copy)
    (copy.parent / missing).unlink()
    with pytest.raises(CheckpointError, match=rf"{missing} is missing: restore it .* --checkpoint or CHECKPOINT"):
        checkpoint.load(copy)


CLASSES = [json.dumps({"classes": classes}) for classes in (list(range(10)), "abcdefghij", list("abcdefghia"), ["cat"])]


@pytest.mark.parametrize("content", ["", "[]", "{", '{"size": 224}', "null", *CLASSES])
def test_a_wrong_card_is_refused(copy: Path, content: str) -> None:
    """A file that is no card, or has a field that no card has, is an error that names the file."""
    copy.with_suffix(".json").write_text(content)
    with pytest.raises(CheckpointError, match=r"small.json is not a model card"):
        checkpoint.load(copy)


def test_the_card_of_another_checkpoint_is_refused(copy: Path, checkpoint_path: Path) -> None:
    """Weights beside the card of another checkpoint do not load."""
    shutil.copy(files.beside(checkpoint_path, ".json"), copy.with_suffix(".json"))
    with pytest.raises(CheckpointError, match=r"is damaged or is not the checkpoint of small\.json"):
        checkpoint.load(copy)


def test_every_variant_refuses_a_damaged_checkpoint(copy: Path) -> None:
    """No variant loads from a damaged checkpoint."""
    copy.write_bytes(b"")
    for name in ON_CPU:
        with pytest.raises(CheckpointError):
            loading.load(name, device="cpu", checkpoint=copy)


@pytest.mark.parametrize(
    ("name", "derived"),
    [
        ("net.safetensors", "net.json"),
        ("net-0.95.pt", "net-0.95.json"),
        ("epoch=12-acc=0.94.ckpt", "epoch=12-acc=0.94.json"),
        ("net.1.pth.tar", "net.1.json"),
        ("net.1.int8.safetensors", "net.1.json"),
        ("net.v2.bin", "net.v2.json"),
    ],
)
def test_a_name_may_have_dots(name: str, derived: str) -> None:
    """A derived file shares the name of its checkpoint without the suffix, also if that name has dots."""
    assert files.beside(Path("a.b") / name, ".json") == Path("a.b") / derived


def test_a_card_with_a_hash_alone_gives_the_size(copy: Path) -> None:
    """The size of a loaded card is the file's, also if the card has none or another."""
    for known in ({}, {"bytes": 5}):
        copy.with_suffix(".json").write_text(json.dumps({"sha256": files.sha256(copy.read_bytes())} | known))
        assert checkpoint.load(copy)[1].bytes == copy.stat().st_size


def test_the_environment_names_the_checkpoint(copy: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """CHECKPOINT names the checkpoint if no argument does."""
    monkeypatch.setenv("CHECKPOINT", str(copy))
    assert checkpoint.load()[1].seed == 0
    assert files.default_path() == copy


def test_the_cpu_needs_no_torch() -> None:
    """Nothing that builds, tests, calibrates or evaluates an engine of OpenVINO imports torch."""
    names = ("engines.on_cpu", "engines.dynamic", "loading", "quantize", "sample", "evaluate", "selftest")
    code = f"import sys, {', '.join('models.' + name for name in names)}; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0

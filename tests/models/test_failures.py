"""A command that fails ends with one sentence and leaves the files that were there before, and no others."""

from collections.abc import Callable
from pathlib import Path

import pytest

from models import evaluate, files, quantize, sample, train

ONE_SENTENCE = r"^error: [^\n]+$"


def tree(folder: Path) -> dict[Path, bytes]:
    """Return every file below the folder with its content."""
    return {place: place.read_bytes() for place in folder.rglob("*") if place.is_file()}


@pytest.fixture
def own(tmp_path: Path, checkpoint_path: Path) -> Path:
    """Return a copy of the checkpoint with an older calibration beside it."""
    own = tmp_path / "own" / "own.safetensors"
    own.parent.mkdir()
    own.write_bytes(checkpoint_path.read_bytes())
    own.with_suffix(".int8.json").write_text("an older calibration")
    return own


def refuse(*_: object) -> bytes:
    """Fail as a device does that has no memory left."""
    raise RuntimeError("out of memory\nin many lines")


def test_a_quantization_that_fails_late_writes_nothing(
    own: Path, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the last of its files cannot be computed, quantize writes neither calibration nor artifact."""
    monkeypatch.setattr(quantize, "packed_logits", refuse)
    before = tree(tmp_path)
    flags = ["--checkpoint", str(own), "--calibration-images", str(pictures), "--artifact"]
    with pytest.raises(SystemExit, match=ONE_SENTENCE):
        quantize.main([*flags, str(tmp_path / "new" / "own.int8.safetensors")])
    assert tree(tmp_path) == before


@pytest.mark.parametrize("obstacle", ["file as folder", "folder as file"])
def test_a_quantization_that_cannot_write_writes_nothing(
    own: Path, pictures: Path, tmp_path: Path, obstacle: str
) -> None:
    """If the place of the artifact cannot be written, the older calibration stays."""
    artifact = tmp_path / "out" / "own.int8.safetensors"
    if obstacle == "folder as file":
        artifact.mkdir(parents=True)
    else:
        artifact.parent.write_text("")
    before = tree(tmp_path)
    with pytest.raises(SystemExit, match=ONE_SENTENCE):
        quantize.main(["--checkpoint", str(own), "--calibration-images", str(pictures), "--artifact", str(artifact)])
    assert tree(tmp_path) == before


@pytest.mark.slow
def test_an_evaluation_that_cannot_write_keeps_only_its_logits(tiny_dataset: Path, tmp_path: Path) -> None:
    """If one result cannot be written, evaluate writes none; the logits stay, from which it continues."""
    out = tmp_path / "out"
    (out / "evaluation.md").mkdir(parents=True)
    flags = ["--variants", "fp32-cpu,int8", "--threads", "1", "--batch-sizes", "5", "--batch-images", "10"]
    with pytest.raises(SystemExit, match=ONE_SENTENCE):
        evaluate.main([*flags, "--data", str(tiny_dataset), "--out", str(out)])
    assert {place.parent for place in tree(out)} == {out / "logits"}


@pytest.mark.slow
def test_a_training_that_cannot_write_keeps_only_its_state(tiny_dataset: Path, tmp_path: Path) -> None:
    """If the card cannot be written, train writes no weights either; last.pt stays, from which it continues."""
    out = tmp_path / "out"
    (out / "resnet18_cifar10.json").mkdir(parents=True)
    flags = ["--epochs", "1", "--batch-size", "20", "--resolutions", "16@1", "--device", "cpu"]
    with pytest.raises(SystemExit, match=ONE_SENTENCE):
        train.main(["--data", str(tiny_dataset), "--out", str(out), *flags])
    assert set(tree(out)) == {out / "last.pt"}


@pytest.mark.parametrize(
    ("command", "flags"),
    [
        (quantize.main, ["--out", "{FILE}", "--calibration-images", "{PICTURES}"]),
        (train.main, ["--out", "{FILE}", "--data", "{DATA}", "--batch-size", "20", "--device", "cpu"]),
        (evaluate.main, ["--out", "{FILE}", "--data", "{DATA}", "--variants", "fp32-cpu", "--batch-sizes", "5"]),
        (sample.main, ["--checkpoint", "{FILE}/own.safetensors"]),
    ],
)
def test_an_impossible_folder_is_one_sentence(
    command: Callable[[list[str]], None], flags: list[str], tiny_dataset: Path, pictures: Path, tmp_path: Path
) -> None:
    """A file where a folder should be ends every command with one sentence, and the file stays."""
    (tmp_path / "file").write_text("mine")
    places = {"FILE": str(tmp_path / "file"), "PICTURES": str(pictures), "DATA": str(tiny_dataset)}
    before = tree(tmp_path)
    with pytest.raises(SystemExit, match=ONE_SENTENCE):
        command([flag.format(**places) for flag in flags])
    assert tree(tmp_path) == before


def test_files_that_belong_together_are_written_together(tmp_path: Path) -> None:
    """If one of several files cannot be written, the others keep their content and no partial file stays."""
    (tmp_path / "old").write_text("old")
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        files.write_all({tmp_path / "old": b"new", tmp_path / "folder": b"x"})
    assert tree(tmp_path) == {tmp_path / "old": b"old"}
    files.write_all({tmp_path / "old": b"new", tmp_path / "deep" / "er": b"x"})
    assert tree(tmp_path) == {tmp_path / "old": b"new", tmp_path / "deep" / "er": b"x"}


def test_a_full_disk_leaves_no_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """If the disk is full, the old file stays and the partial one is removed."""

    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    (tmp_path / "old").write_text("old")
    monkeypatch.setattr(files.os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        files.write(tmp_path / "old", b"new")
    assert tree(tmp_path) == {tmp_path / "old": b"old"}

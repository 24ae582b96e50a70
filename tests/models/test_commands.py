"""The commands from training to an INT8 engine, on a tiny data set in the official layout."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common import machine
from models import (
    calibrate,
    calibration,
    checkpoint,
    cifar10,
    files,
    loading,
    quantize,
    reference,
    sample,
    selftest,
    train,
)
from models.card import AS_IT_SAYS, Card, Preparation, read_card
from models.training.recipe import Recipe


@pytest.mark.slow
def test_from_training_to_an_int8_engine(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Train, calibrate, write the artifact, store logits: with VNNI int8 loads from both files and answers alike."""
    out = tmp_path / "out"
    flags = ["--epochs", "1", "--batch-size", "20", "--resolutions", "16@1", "--device", "cpu"]
    train.main(["--data", str(tiny_dataset), "--out", str(out), *flags])
    path = out / "resnet18_cifar10.safetensors"
    card = checkpoint.load(path)[1]
    assert card.command is not None
    again = train.parse(card.command.split()[3:])[1]
    assert again == Recipe(epochs=1, batch_size=20, resolutions="16@1")
    assert card.test_images == 20
    assert json.loads(capsys.readouterr().out)["sha256"] == card.sha256
    artifact = tmp_path / "alone" / "resnet18_cifar10.int8.safetensors"
    artifact.parent.mkdir()
    quantize.main(
        ["--data", str(tiny_dataset), "--checkpoint", str(path), "--images", "16", "--artifact", str(artifact)]
    )
    assert len(calibration.load(files.beside(path, ".int8.json"), card.sha256).ranges) == 20
    sample.main(["--checkpoint", str(path)])
    pixels = cifar10.sample()[0][:4]
    with monkeypatch.context() as patched:
        patched.setattr(machine, "has_vnni", lambda: True)  # without it, only the artifact's weights are rounded twice
        logits = [loading.load("int8", threads=1, checkpoint=place).run(pixels).logits for place in (path, artifact)]
    assert np.array_equal(*logits)
    alone = loading.load("int8", threads=1, checkpoint=artifact)
    tested = [selftest.examine(alone, artifact, said).agreement for said in (AS_IT_SAYS, Preparation(input_size=32))]
    assert tested[0] == tested[1] > 0
    files.beside(artifact, reference.SUFFIX).unlink()
    with pytest.raises(reference.SelfTestFailed, match="is missing: the self-test needs reference logits"):
        selftest.examine(alone, artifact, Preparation(input_size=32))
    with pytest.raises(SystemExit):
        quantize.main(["--artifact", str(out / "int8.safetensors")])
    assert "a name that ends in .int8.safetensors" in capsys.readouterr().err


def test_own_images_calibrate_without_the_data_set(
    checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--calibration-images` calibrates on the first `--images` images of a folder, without CIFAR-10."""
    folder = tmp_path / "mine"
    folder.mkdir()
    for index, image in enumerate(cifar10.sample()[0][:6]):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{index}.png")
    out = ["--checkpoint", str(checkpoint_path), "--out", str(tmp_path), "--data", str(tmp_path / "none")]
    quantize.main([*out, "--calibration-images", str(folder), "--images", "5"])
    assert f"over 5 images of {folder}" in capsys.readouterr().out
    place = files.beside(tmp_path / checkpoint_path.name, ".int8.json")
    assert calibration.load(place, read_card(checkpoint_path).sha256).images == 5


@pytest.mark.parametrize("flags", ["--images -5", "--images 0", "--seed -1"])
def test_numbers_that_mean_nothing_are_refused(flags: str, capsys: pytest.CaptureFixture[str]) -> None:
    """A number out of range is an error that names its flag."""
    with pytest.raises(SystemExit, match="2"):
        quantize.main(flags.split())
    assert f"argument {flags.partition(' ')[0]}: expected a whole number" in capsys.readouterr().err


@pytest.mark.parametrize("command", [quantize.main, train.main])
def test_without_the_data_set_a_command_says_so(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_path: Path
) -> None:
    """A command that has no data and cannot download it ends with one sentence."""
    monkeypatch.setenv("CHECKPOINT", str(checkpoint_path))

    def offline(root: Path) -> None:
        raise cifar10.DatasetError(f"could not download to {root}")

    monkeypatch.setattr(cifar10, "ensure", offline)
    with pytest.raises(SystemExit, match=r"^error: .*(missing|could not download)"):
        command(["--data", str(tmp_path)])


def test_the_ranges_hold_the_method(tiny_dataset: Path, checkpoint_path: Path, card: Card) -> None:
    """Each method's range lies within the min-max range and is not empty; only shortcuts go below zero."""
    network = quantize.fold(checkpoint.load(checkpoint_path)[0])
    images = np.ascontiguousarray(cifar10.read(tiny_dataset, "train")[0][:16])
    found = {method: calibrate.calibrate(network, images, method) for method in calibrate.METHODS}
    for name, (low, high) in found["minmax"].items():
        for method in calibrate.METHODS:
            inner = found[method][name]
            assert low <= inner[0] <= 0 < inner[1] <= high * 1.001
        assert (low < 0) == ("downsample" in name)


def test_least_error_cuts_one_outlier() -> None:
    """One outlier does not stretch the range of a million values; evenly spread values keep their range."""
    counts = np.zeros(calibrate.BINS)
    counts[1:1000], counts[-1] = 1000, 1
    assert calibrate.least_error(counts, (0.0, 8.0))[1] < 5
    even = np.ones(calibrate.BINS)
    assert calibrate.least_error(even, (0.0, 8.0))[1] > 7.8

"""Training and calibration from end to end, on a tiny data set in the official layout."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from models import calibration, checkpoint, cifar10, quantize, sample, selftest, train, variants
from models.checkpoint import AS_IT_SAYS, Card, Preparation
from models.train import Recipe, Run

RECIPE = Recipe(epochs=1, batch_size=10, resolutions="16@1", seed=5)


class Stopped(Exception):
    """Somebody stopped the training."""


def weights(out: Path) -> dict[str, torch.Tensor]:
    return torch.load(out / "last.pt", weights_only=True)["net"]


@pytest.mark.slow
def test_a_stopped_training_goes_on_as_if_it_had_not_been(
    tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after two of four steps and resumed, it ends with the weights of a run that was never stopped."""
    cpu = torch.device("cpu")
    train.train(RECIPE, tiny_dataset, tmp_path / "whole", cpu, save_every=1e9)
    step = Run.train_step

    def stopping(run: Run, images: torch.Tensor, labels: torch.Tensor) -> float:
        if run.step == 2:
            raise Stopped
        return step(run, images, labels)

    monkeypatch.setattr(Run, "train_step", stopping)
    with pytest.raises(Stopped):
        train.train(RECIPE, tiny_dataset, tmp_path / "halves", cpu, save_every=0)
    monkeypatch.setattr(Run, "train_step", step)
    assert train.train(RECIPE, tiny_dataset, tmp_path / "halves", cpu, save_every=1e9).step == 4
    whole, halves = weights(tmp_path / "whole"), weights(tmp_path / "halves")
    assert all(torch.equal(whole[name], halves[name]) for name in whole)


@pytest.mark.slow
def test_from_training_to_an_int8_engine(
    tiny_dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The commands in a row: train, calibrate, write the artifact, store logits; int8 then loads and answers."""
    out = tmp_path / "out"
    flags = ["--epochs", "1", "--batch-size", "20", "--resolutions", "16@1", "--device", "cpu"]
    train.main(["--data", str(tiny_dataset), "--out", str(out), *flags])
    path = out / "resnet18_cifar10.safetensors"
    card = checkpoint.load(path)[1]
    assert card.command.endswith("--epochs 1 --batch-size 20 --resolutions 16@1")
    assert card.test_images == 20
    assert json.loads(capsys.readouterr().out)["sha256"] == card.sha256
    artifact = tmp_path / "alone" / "resnet18_cifar10.int8.safetensors"
    artifact.parent.mkdir()
    quantize.main(
        ["--data", str(tiny_dataset), "--checkpoint", str(path), "--images", "16", "--artifact", str(artifact)]
    )
    assert len(calibration.load(checkpoint.beside(path, ".int8.json"), card.sha256).ranges) == 20
    sample.main(["--checkpoint", str(path)])
    pixels = cifar10.sample()[0][:4]
    logits = [variants.load("int8", threads=1, checkpoint=place).run(pixels).logits for place in (path, artifact)]
    assert np.array_equal(*logits)
    alone = variants.load("int8", threads=1, checkpoint=artifact)
    tested = [selftest.agreement(alone, artifact, said) for said in (AS_IT_SAYS, Preparation(input_size=32))]
    assert tested[0] == tested[1] > 0
    checkpoint.beside(artifact, selftest.SUFFIX).unlink()
    with pytest.raises(selftest.SelfTestFailed, match="is missing: the self-test needs reference logits"):
        selftest.agreement(alone, artifact, Preparation(input_size=32))
    with pytest.raises(SystemExit):
        quantize.main(["--artifact", str(out / "int8.safetensors")])
    assert "a name that ends in .int8.safetensors" in capsys.readouterr().err


def test_another_recipe_does_not_resume(tmp_path: Path) -> None:
    """A run resumes only under its own recipe."""
    run = Run(RECIPE, torch.device("cpu"), 4)
    run.save(tmp_path / "last.pt")
    with pytest.raises(SystemExit, match="give the same flags, or another --out"):
        Run(Recipe(seed=6), torch.device("cpu"), 4).resume(tmp_path / "last.pt")


@pytest.mark.parametrize("command", [quantize.main, train.main])
def test_without_the_data_set_a_command_says_so(
    command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, checkpoint_path: Path
) -> None:
    """Without data (and, for training, without a network) the command ends with one sentence, not a traceback."""
    monkeypatch.setenv("CHECKPOINT", str(checkpoint_path))

    def offline(root: Path) -> None:
        raise cifar10.DatasetError(f"could not download to {root}")

    monkeypatch.setattr(cifar10, "ensure", offline)
    with pytest.raises(SystemExit, match=r"^error: .*(missing|could not download)"):
        command(["--data", str(tmp_path)])


def test_the_ranges_hold_the_method(tiny_dataset: Path, checkpoint_path: Path, card: Card) -> None:
    """Min-max ranges contain those that leave outliers out; none is empty, and only shortcuts go below zero."""
    network = quantize.fold(checkpoint.load(checkpoint_path)[0])
    images = np.ascontiguousarray(cifar10.read(tiny_dataset, "train")[0][:16])
    found = {method: quantize.calibrate(network, images, method) for method in quantize.METHODS}
    for name, (low, high) in found["minmax"].items():
        for method in quantize.METHODS:
            inner = found[method][name]
            assert low <= inner[0] <= 0 < inner[1] <= high * 1.001
        assert (low < 0) == ("downsample" in name)


def test_least_error_cuts_one_outlier() -> None:
    """One value far out does not stretch the range that a million others need; evenly spread values keep theirs."""
    counts = np.zeros(quantize.BINS)
    counts[1:1000], counts[-1] = 1000, 1
    assert quantize.least_error(counts, (0.0, 8.0))[1] < 5
    even = np.ones(quantize.BINS)
    assert quantize.least_error(even, (0.0, 8.0))[1] > 7.8

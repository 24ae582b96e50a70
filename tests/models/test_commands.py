"""Training and calibration from end to end, on a tiny data set in the official layout."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

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
from models.files import CheckpointError
from models.resnet import resnet18
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
    """Stopped in an epoch that leaves easy images out, and resumed, it ends as a run that was never stopped."""
    cpu, recipe = torch.device("cpu"), replace(RECIPE, epochs=3, pruned=0.5)
    steps = train.train(recipe, tiny_dataset, tmp_path / "whole", cpu, save_every=1e9).step
    step = Run.train_step

    def stopping(run: Run, images: torch.Tensor, labels: torch.Tensor) -> float:
        if (run.epoch, run.position) == (1, 1):
            assert len(run.order) < len(images)
            raise Stopped
        return step(run, images, labels)

    monkeypatch.setattr(Run, "train_step", stopping)
    with pytest.raises(Stopped):
        train.train(recipe, tiny_dataset, tmp_path / "halves", cpu, save_every=0)
    monkeypatch.setattr(Run, "train_step", step)
    assert train.train(recipe, tiny_dataset, tmp_path / "halves", cpu, save_every=1e9).step == steps
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
    logits = [loading.load("int8", threads=1, checkpoint=place).run(pixels).logits for place in (path, artifact)]
    assert np.array_equal(*logits)
    alone = loading.load("int8", threads=1, checkpoint=artifact)
    tested = [selftest.agreement(alone, artifact, said) for said in (AS_IT_SAYS, Preparation(input_size=32))]
    assert tested[0] == tested[1] > 0
    files.beside(artifact, reference.SUFFIX).unlink()
    with pytest.raises(reference.SelfTestFailed, match="is missing: the self-test needs reference logits"):
        selftest.agreement(alone, artifact, Preparation(input_size=32))
    with pytest.raises(SystemExit):
        quantize.main(["--artifact", str(out / "int8.safetensors")])
    assert "a name that ends in .int8.safetensors" in capsys.readouterr().err


def test_the_bundled_cards_commands_are_its_recipes() -> None:
    """Every stage of the bundled checkpoint can be run again from its card, whatever the defaults are."""
    card: Any = asdict(read_card(files.BUNDLED))
    stages = 0
    while card:
        recipe = asdict(train.parse(card["command"].split()[3:])[1])
        unsaid = {"cutout": 0, "pruned": 0}  # of cards that are older than the flags
        assert (unsaid | card["recipe"]).items() <= recipe.items()
        card, stages = card["started_from"], stages + 1
    assert stages == 5


def test_another_recipe_does_not_resume(tmp_path: Path) -> None:
    """A run resumes only under its own recipe."""
    run = Run(RECIPE, torch.device("cpu"), 4)
    run.save(tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="give the same flags, or another --out"):
        Run(Recipe(seed=6), torch.device("cpu"), 4).resume(tmp_path / "last.pt")


@pytest.mark.parametrize("data", [b"", b"abc", b"PK\x03\x04"])
def test_a_damaged_state_does_not_resume(tmp_path: Path, data: bytes) -> None:
    """It is named, and left as it is."""
    (tmp_path / "last.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"last.pt is damaged or of another version .* delete it to begin anew"):
        Run(RECIPE, torch.device("cpu"), 4).resume(tmp_path / "last.pt")
    assert (tmp_path / "last.pt").read_bytes() == data


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--resolutions 16@0.25,24@0.55,32", "--resolutions: expected SIDE@UNTIL"),
        ("--resolutions 16@25,32@100", "--resolutions: expected progress that rises to 1"),
        ("--resolutions 32@0.5,24@0.5,16@1", "--resolutions: expected progress that rises to 1"),
        ("--resolutions 4@1", "--resolutions: expected SIDE@UNTIL"),
        ("--epochs 0", "--epochs: 0 is out of range"),
        ("--pruned 1", "--pruned: 1.0 is out of range"),
        ("--warmup 1", "--warmup: 1.0 is out of range"),
        ("--cutout 40", "--cutout: 40 is out of range"),
        ("--device gpu", "expected cpu, cuda or cuda:N, got 'gpu'"),
    ],
)
def test_an_impossible_recipe_is_refused_before_the_data(
    flags: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Not after a download, or hours of training."""
    monkeypatch.setattr(cifar10, "ensure", lambda _: pytest.fail("looked for the data"))
    with pytest.raises(SystemExit, match="2"):
        train.main(flags.split())
    assert words in capsys.readouterr().err


def test_more_images_a_batch_than_there_are(tiny_dataset: Path, tmp_path: Path) -> None:
    """An epoch needs one batch at least."""
    with pytest.raises(SystemExit, match="--batch-size: 128 is more than an epoch may have of"):
        train.main(["--data", str(tiny_dataset), "--out", str(tmp_path / "out"), "--device", "cpu"])


def test_a_run_goes_on_from_other_weights(
    checkpoint_path: Path, tmp_path: Path, tiny_dataset: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It begins with them, its card has theirs, and once begun it needs the file no more; no other stem."""
    begin = tmp_path / "begin.safetensors"
    begin.write_bytes(checkpoint_path.read_bytes())
    recipe = replace(RECIPE, start=str(begin))
    seen: list[torch.Tensor] = []
    step = Run.train_step

    def once(run: Run, *batch: torch.Tensor) -> float:
        seen.append(run.net.fc.bias.detach().clone())
        if run.step == 1:
            raise Stopped
        return step(run, *batch)

    monkeypatch.setattr(Run, "train_step", once)
    cpu = torch.device("cpu")
    with pytest.raises(Stopped):
        train.train(recipe, tiny_dataset, tmp_path / "out", cpu, save_every=0)
    assert np.array_equal(seen[0].numpy(), checkpoint.load(checkpoint_path)[0]["fc.bias"])
    begin.unlink()
    with pytest.raises(Stopped):
        train.train(recipe, tiny_dataset, tmp_path / "out", cpu, save_every=0)
    run = Run(recipe, cpu, 4)
    run.resume(tmp_path / "out" / "last.pt")
    assert train.describe(run, 0.5, 20).started_from["sha256"] == files.sha256(checkpoint_path.read_bytes())
    with pytest.raises(CheckpointError, match="is missing"):
        train.train(recipe, tiny_dataset, tmp_path / "new", cpu, save_every=0)
    plain = tmp_path / "plain.pt"
    torch.save(resnet18("plain").state_dict(), plain)
    (tmp_path / "plain.json").write_text('{"input_size": 32, "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}')
    with pytest.raises(CheckpointError, match=r"--start .*plain.pt: torchvision ResNet18, 7x7"):
        train.started(plain)


def test_a_card_names_every_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """That a run was trained on, in order; a command repeated at the end adds none."""
    cpu, last = torch.device("cpu"), tmp_path / "last.pt"
    for name in ("A", "A", "B"):
        monkeypatch.setattr(train, "describe_machine", lambda _, name=name: name)
        run = Run(RECIPE, cpu, 4)
        if last.exists():
            run.resume(last)
        run.save(last)
    assert train.describe(run, 0.5, 20).hardware == "A; then B"
    run.epoch = RECIPE.epochs
    run.save(last)
    monkeypatch.setattr(train, "describe_machine", lambda _: "C")
    run = Run(RECIPE, cpu, 4)
    run.resume(last)
    assert train.describe(run, 0.5, 20).hardware == "A; then B"


def test_own_images_calibrate_without_the_data_set(
    checkpoint_path: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The folder that is named, as many of it as asked for."""
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
    """By name, before anything is read."""
    with pytest.raises(SystemExit, match="2"):
        quantize.main(flags.split())
    assert f"argument {flags.partition(' ')[0]}: expected a whole number" in capsys.readouterr().err


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
    found = {method: calibrate.calibrate(network, images, method) for method in calibrate.METHODS}
    for name, (low, high) in found["minmax"].items():
        for method in calibrate.METHODS:
            inner = found[method][name]
            assert low <= inner[0] <= 0 < inner[1] <= high * 1.001
        assert (low < 0) == ("downsample" in name)


def test_least_error_cuts_one_outlier() -> None:
    """One value far out does not stretch the range that a million others need; evenly spread values keep theirs."""
    counts = np.zeros(calibrate.BINS)
    counts[1:1000], counts[-1] = 1000, 1
    assert calibrate.least_error(counts, (0.0, 8.0))[1] < 5
    even = np.ones(calibrate.BINS)
    assert calibrate.least_error(even, (0.0, 8.0))[1] > 7.8

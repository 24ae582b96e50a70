"""Training, on a tiny data set in the official layout."""

import json
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from models import checkpoint, cifar10, files, train
from models.card import read_card
from models.files import CheckpointError
from models.resnet import resnet18
from models.training import hardware, loop, result, saving
from models.training.augment import normalise
from models.training.recipe import Recipe
from models.training.run import Run, start_of

RECIPE = Recipe(epochs=1, batch_size=10, cutmix=0, resolutions="16@1", seed=5)
CPU = torch.device("cpu")


class Stopped(Exception):
    """Somebody stopped the training."""


def stop_before(monkeypatch: pytest.MonkeyPatch, epoch: int, position: int) -> None:
    """Stop every run before the step at this position of this epoch."""
    step = Run.train_step

    def stopping(run: Run, images: torch.Tensor, labels: torch.Tensor) -> float:
        if (run.epoch, run.position) == (epoch, position):
            raise Stopped
        return step(run, images, labels)

    monkeypatch.setattr(Run, "train_step", stopping)


def saved(out: Path) -> dict[str, Any]:
    """Return the state that a run left in `out`."""
    state: dict[str, Any] = torch.load(out / "last.pt", weights_only=True)
    return state


@pytest.mark.slow
@pytest.mark.parametrize("mixed", [{"pruned": 0.5}, {"cutmix": 0.5}], ids=str)
def test_a_resumed_training_ends_as_one_that_was_not_stopped(
    mixed: dict[str, Any], tiny_dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A run that stopped in an epoch without its easy images, or with mixed ones, ends as a whole run once resumed."""
    recipe = replace(RECIPE, epochs=3, **mixed)
    whole = loop.train(recipe, tiny_dataset, tmp_path / "whole", CPU, save_every=1e9)
    with monkeypatch.context() as patch:
        stop_before(patch, epoch=1, position=1)
        with pytest.raises(Stopped):
            loop.train(recipe, tiny_dataset, tmp_path / "halves", CPU, save_every=0)
    assert (len(saved(tmp_path / "halves")["order"]) < 40) == bool(recipe.pruned)
    resumed = loop.train(recipe, tiny_dataset, tmp_path / "halves", CPU, save_every=1e9)
    assert resumed.step == whole.step
    weights, expected = resumed.net.state_dict(), whole.net.state_dict()
    assert all(torch.equal(weights[name], expected[name]) for name in expected)


def test_the_bundled_cards_command_is_its_recipe() -> None:
    """The command on the bundled card gives the recipe on that card, which differs from the defaults by the seed."""
    card = read_card(files.BUNDLED)
    assert card.command is not None
    recipe = train.parse(card.command.split()[3:])[1]
    assert asdict(recipe) == card.recipe
    assert recipe == Recipe(seed=10)


def test_the_labels_of_mixed_images_are_shares_of_their_area() -> None:
    """A mixed image has its own class for its own share of the pixels, and the other image's class for the rest."""
    recipe, labels, flip = replace(RECIPE, cutmix=1, crop_padding=0, resolutions="32@1"), torch.arange(10), [False] * 10
    pixels = (labels * 20).to(torch.uint8)[:, None, None, None].expand(10, 3, 32, 32)
    inputs, shares = Run(recipe, CPU, 10)._inputs(pixels, torch.tensor(flip), labels)
    own = (inputs == normalise(pixels)).float().mean((1, 2, 3))
    assert 0 < own.min() < 1
    assert torch.allclose(shares.diagonal(), own)
    assert torch.allclose(shares.sum(1), torch.ones(10))
    assert ((shares > 0).sum(1) <= 2).all()


def test_another_recipe_does_not_resume(tmp_path: Path) -> None:
    """A run does not resume with another recipe."""
    saving.save(Run(RECIPE, CPU, 4), tmp_path / "last.pt")
    with pytest.raises(CheckpointError, match="give the same flags, or another --out"):
        saving.resume(Run(Recipe(seed=6), CPU, 4), tmp_path / "last.pt")


@pytest.mark.parametrize("data", [b"", b"abc", b"PK\x03\x04"])
def test_a_damaged_state_does_not_resume(tmp_path: Path, data: bytes) -> None:
    """A damaged state is an error that names the file, which stays as it is."""
    (tmp_path / "last.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"last.pt is damaged or of another version .* delete it to begin anew"):
        saving.resume(Run(RECIPE, CPU, 4), tmp_path / "last.pt")
    assert (tmp_path / "last.pt").read_bytes() == data


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ("--resolutions 16@0.25,24@0.55,32", "--resolutions: expected SIDE@UNTIL"),
        ("--resolutions 16@25,32@100", "--resolutions: expected progress that rises to 1"),
        ("--resolutions 32@0.5,24@0.5,16@1", "--resolutions: expected progress that rises to 1"),
        ("--resolutions 4@1", "--resolutions: expected SIDE@UNTIL"),
        ("--epochs 0", "--epochs: 0 is out of range"),
        ("--cutmix 0 --pruned 1", "--pruned: 1.0 is out of range"),
        ("--warmup 1", "--warmup: 1.0 is out of range"),
        ("--cutout 40", "--cutout: 40 is out of range"),
        ("--cutmix 1.5", "--cutmix: 1.5 is out of range"),
        ("--pruned 0.5", "--pruned: needs --cutmix 0"),
        ("--device gpu", "expected cpu, cuda or cuda:N, got 'gpu'"),
    ],
)
def test_an_impossible_recipe_is_refused_before_the_data(
    flags: str, words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong flag is an error before the command looks for the data."""
    monkeypatch.setattr(cifar10, "ensure", lambda _: pytest.fail("looked for the data"))
    with pytest.raises(SystemExit, match="2"):
        train.main(flags.split())
    assert words in capsys.readouterr().err


def test_an_epoch_needs_a_whole_batch(tiny_dataset: Path, tmp_path: Path) -> None:
    """A batch larger than an epoch is an error."""
    with pytest.raises(SystemExit, match="--batch-size: 256 is more than an epoch may have of"):
        train.main(["--data", str(tiny_dataset), "--out", str(tmp_path / "out"), "--device", "cpu"])


@pytest.fixture
def begin(checkpoint_path: Path, tmp_path: Path) -> Path:
    """Return a checkpoint without a card that a run can continue."""
    place = tmp_path / "begin.safetensors"
    place.write_bytes(checkpoint_path.read_bytes())
    return place


def test_a_run_continues_the_weights_of_a_checkpoint(begin: Path) -> None:
    """A run with `start` has the checkpoint's weights, and its card holds the checkpoint's card."""
    run = loop.begun(replace(RECIPE, start=str(begin)), CPU, 40, begin.with_name("last.pt"))
    assert np.array_equal(run.net.fc.bias.detach().numpy(), checkpoint.load(begin)[0]["fc.bias"])
    card = result.describe(run, 0.5, 20)
    assert card.started_from is not None
    assert card.started_from["sha256"] == files.sha256(begin.read_bytes())


def test_a_resumed_run_does_not_read_its_start(begin: Path) -> None:
    """Only a new run needs the checkpoint that it starts from."""
    recipe, last = replace(RECIPE, start=str(begin)), begin.with_name("last.pt")
    first = loop.begun(recipe, CPU, 40, last)
    saving.save(first, last)
    begin.unlink()
    assert loop.begun(recipe, CPU, 40, last).started_from == first.started_from
    with pytest.raises(CheckpointError, match="is missing"):
        loop.begun(recipe, CPU, 40, begin.with_name("new.pt"))


def test_a_run_starts_from_the_cifar_stem_only(tmp_path: Path) -> None:
    """A checkpoint with torchvision's own stem is no start."""
    place = tmp_path / "plain.pt"
    torch.save(resnet18("plain").state_dict(), place)
    place.with_suffix(".json").write_text(json.dumps({"input_size": 32, "mean": [0.5] * 3, "std": [0.5] * 3}))
    with pytest.raises(CheckpointError, match=r"--start .*plain.pt: torchvision ResNet18, 7x7"):
        start_of(place)


def test_a_card_names_every_machine_that_trained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The card names the machines in order, each once in a row, and none that resumed a run that was over."""
    last = tmp_path / "last.pt"

    def on(name: str, epoch: int) -> Run:
        monkeypatch.setattr(hardware, "describe", lambda _: name)
        run = loop.begun(RECIPE, CPU, 4, last)
        run.epoch = epoch
        saving.save(run, last)
        return run

    for name in ("A", "A", "B"):
        run = on(name, epoch=0)
    assert result.describe(run, 0.5, 20).hardware == "A; then B"
    on("B", epoch=RECIPE.epochs)
    assert result.describe(on("C", epoch=RECIPE.epochs), 0.5, 20).hardware == "A; then B"

"""`python -m models.prepare`: the folder that it writes, and what it refuses."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import calibration, checkpoint, cifar10, evaluate, files, prepare, prepared
from models.card import read_card
from models.evaluation import record
from models.evaluation.images import HELD_OUT
from models.split import SUFFIX

NAMES = ("cat", "ship", "frog")
FLAGS = ("--variants", "fp32-cpu,int8", "--threads", "1")


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with ten bundled images of each of three classes, a damaged file and a Mac's hidden one."""
    folder = tmp_path_factory.mktemp("prepare") / "photos"
    images, labels = cifar10.sample()
    for name in NAMES:
        (folder / name).mkdir(parents=True)
        for index in np.flatnonzero(labels == cifar10.CLASSES.index(name))[:10]:
            Image.fromarray(images[index].transpose(1, 2, 0)).save(folder / name / f"{index}.png")
    (folder / "cat" / "damaged.png").write_bytes(b"no picture")
    (folder / "cat" / "._0.png").write_bytes(b"Mac OS X")
    return folder


@pytest.fixture(scope="module")
def three(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint with the bundled network's rows of three classes, in another order than the folders."""
    state, _ = checkpoint.load(files.BUNDLED)
    rows = [cifar10.CLASSES.index(name) for name in NAMES]
    state |= {f"fc.{part}": np.ascontiguousarray(state[f"fc.{part}"][rows]) for part in ("weight", "bias")}
    place = tmp_path_factory.mktemp("three") / "mine.safetensors"
    place.write_bytes(checkpoint.serialize(state))
    place.with_name("names.txt").write_text("\n".join(NAMES))
    return place


@pytest.fixture(scope="module")
def folder(three: Path, photos: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the prepared folder of that network and those pictures."""
    out = tmp_path_factory.mktemp("out") / "mine"
    prepare.main(
        [str(three), "--images", str(photos), "--out", str(out), "--classes", str(three.with_name("names.txt")), *FLAGS]
    )
    return out


def test_the_folder_is_complete(folder: Path, photos: Path) -> None:
    """It holds each file, the card tells classes and accuracy, and the split names every picture once."""
    assert sorted(place.name for place in folder.iterdir() if place.suffix != ".png") == [
        "evaluation.md",
        "model.evaluation.json",
        "model.held-out.npz",
        "model.images.npz",
        "model.int8.json",
        "model.json",
        "model.safetensors",
        "model.sample.npz",
        "model.split.json",
    ]
    card = read_card(folder)
    assert (card.classes, card.input_size, card.test_images) == (NAMES, 32, 24)
    assert card.test_accuracy is not None
    assert card.test_accuracy > 0.9
    said = json.loads(files.beside(folder, SUFFIX).read_text())
    named = [one["file"] for part in ("calibration", "held_out") for one in said[part]]
    assert sorted(named) == sorted(
        place.relative_to(photos).as_posix() for place in photos.rglob("[0-9]*.png") if not place.name.startswith(".")
    )
    assert [phrase.rpartition("/")[2] for phrase in said["left_out"]] == ["damaged.png (not a PNG, JPEG or WebP file)"]
    assert calibration.load(files.beside(folder, ".int8.json"), card.sha256).images == len(said["calibration"]) == 6


def test_every_precision_is_evaluated(folder: Path) -> None:
    """The record has each variant, paired with the reference on the held-out pictures."""
    found = record.read(files.resolve(folder))
    assert list(found) == ["fp32-cpu", "int8"]
    clean = found["int8"]["clean"]
    assert (clean["score"]["images"], clean["paired"]["reference"]) == (24, "fp32-cpu")
    assert set(clean["score"]["per_class"]) == set(NAMES)
    assert clean["paired"]["difference"]["low"] < 0 < clean["paired"]["difference"]["high"]


def test_the_evaluation_takes_the_folder(folder: Path, tmp_path: Path) -> None:
    """`models.evaluate --checkpoint FOLDER` judges on the held-out pictures, with the same result."""
    flags = [*FLAGS, "--batch-sizes", "8", "--batch-images", "8", "--corruptions", "blur@1", "--out", str(tmp_path)]
    evaluate.main(["--checkpoint", str(folder), *flags])
    report = json.loads((tmp_path / "evaluation.json").read_text())
    results = report["variants"]["int8"]["results"]
    assert (report["data"], list(results)) == (f"model{HELD_OUT}", ["clean", "blur@1"])
    assert results["clean"]["score"]["top1"] == record.read(files.resolve(folder))["int8"]["clean"]["score"]["top1"]


def test_unlabelled_pictures_calibrate_only(
    three: Path, photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without subfolders nothing is held out or judged, and the output says so."""
    few = cifar10.sample()[0][:4], cifar10.sample()[1][:4]
    monkeypatch.setattr(prepared, "sample", lambda: few)  # the logits of all 300 take a minute
    out = tmp_path / "mine"
    prepare.main([str(three), "--images", str(photos / "ship"), "--out", str(out), *FLAGS])
    assert "no accuracy is judged" in capsys.readouterr().out
    assert not files.beside(out, HELD_OUT).exists()
    assert calibration.load(files.beside(out, ".int8.json"), read_card(out).sha256).images == 10


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ((), r"mine exists already: name another folder with --out"),
        (
            ("--classes", "names"),
            r"subfolders that the network does not know as classes: frog\. .*cat, frog, ship.*cat, ship, owl",
        ),
        (("--held-out", "1.5"), r"expected a share such as 0.8, or a number of pictures, got '1.5'"),
    ],
    ids=["exists", "classes", "share"],
)
def test_a_refusal_leaves_nothing(
    flags: tuple[str, ...],
    words: str,
    three: Path,
    photos: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One sentence says why, and no half of a folder remains."""
    monkeypatch.chdir(tmp_path)
    out = tmp_path / ("other" if flags else "mine")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "file").touch()
    (tmp_path / "names").write_text("cat\nship\nowl")
    before = sorted(tmp_path.iterdir())
    with pytest.raises(SystemExit) as ended:
        prepare.main([str(three), "--images", str(photos), "--out", str(out), *flags])
    assert re.search(words, f"{ended.value} {capsys.readouterr().err}")
    assert sorted(tmp_path.iterdir()) == before

"""A user's labelled pictures: which are found, how their classes meet the network's, and how they are split."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from models import labelled
from models.files import CheckpointError
from models.split import Split, split


def paint(place: Path, shade: int) -> Path:
    """Write a grey picture and return its place."""
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.new("L", (8, 8), shade).save(place)
    return place


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Return a folder with ten pictures of cats, five of dogs and one of a yak, all different."""
    for name, shades in (("cat", range(10)), ("dog", range(20, 25)), ("yak", range(40, 41))):
        for shade in shades:
            paint(tmp_path / "photos" / name / f"{shade}.png", shade)
    return tmp_path / "photos"


def names(part: tuple[labelled.Picture, ...]) -> list[str]:
    return sorted(picture.name for picture in part)


def of(folder: Path, held_out: float | None = None, seed: int = 0) -> Split:
    found = labelled.read(folder)
    return split(found, found.classes, held_out, seed)


def test_the_subfolders_are_the_classes(photos: Path) -> None:
    """Classes are the sorted subfolders. Hidden files are ignored; repeated files and those of no class are named."""
    (photos / "cat" / "._0.png").write_bytes(b"Mac OS X")
    (photos / ".trash").mkdir()
    shutil.copy(photos / "cat" / "0.png", photos / "dog" / "copy.png")
    paint(photos / "loose.png", 60)
    found = labelled.read(photos)
    assert found.classes == ("cat", "dog", "yak")
    assert len(found.pictures) == 16
    assert {picture.label for picture in found.pictures if picture.name.startswith("dog/")} == {"dog"}
    assert sorted(phrase.removeprefix(f"{photos}/") for phrase in found.left_out) == [
        "dog/copy.png (the same file as cat/0.png)",
        "loose.png (beside the subfolders, so without a class)",
    ]


def test_a_folder_without_subfolders_has_no_labels(tmp_path: Path) -> None:
    """Such pictures all calibrate."""
    paint(tmp_path / "1.png", 1)
    assert labelled.read(tmp_path).classes == ()
    assert (names(of(tmp_path).calibration), of(tmp_path).held_out) == (["1.png"], ())


def test_a_folder_without_pictures_is_refused(tmp_path: Path) -> None:
    """The sentence says what was expected; a missing folder has its own."""
    with pytest.raises(CheckpointError, match="one subfolder for each class; found none"):
        labelled.read(tmp_path)
    with pytest.raises(CheckpointError, match="nowhere cannot be listed: No such file or directory"):
        labelled.read(tmp_path / "nowhere")


def test_known_classes_are_matched_by_name(photos: Path) -> None:
    """The network's order counts, a class may have no pictures, and without names the subfolders are the classes."""
    found = labelled.read(photos)
    assert labelled.match(found, ("yak", "owl", "dog", "cat"), 4) == ("yak", "owl", "dog", "cat")
    assert labelled.match(found, None, 3) == ("cat", "dog", "yak")


@pytest.mark.parametrize(
    ("classes", "count", "words"),
    [
        (("cat", "dog"), 2, r"as classes: yak\. .* has 3 classes \(cat, dog, yak\).* has 2 classes \(cat, dog\)"),
        (None, 2, r"the network has 2 classes, and .*photos has 3 classes \(cat, dog, yak\)"),
    ],
)
def test_other_classes_are_refused(photos: Path, classes: tuple[str, ...] | None, count: int, words: str) -> None:
    """The sentence lists the classes of both sides."""
    with pytest.raises(CheckpointError, match=words):
        labelled.match(labelled.read(photos), classes, count)


def test_every_class_is_split_alike(photos: Path) -> None:
    """By default four fifths of each class are held out; at least one picture of each class calibrates."""
    found = of(photos)
    assert [picture.label for picture in found.held_out[:4]] == ["cat", "dog", "cat", "dog"]
    counts = {part: [picture.label for picture in getattr(found, part)] for part in ("held_out", "calibration")}
    assert [counts["held_out"].count(name) for name in ("cat", "dog", "yak")] == [8, 4, 0]
    assert [counts["calibration"].count(name) for name in ("cat", "dog", "yak")] == [2, 1, 1]
    assert len(of(photos, held_out=8).held_out) == len(of(photos, held_out=0.5).held_out) == 7  # of the yak, none


def test_the_split_can_be_made_again(photos: Path, tmp_path: Path) -> None:
    """It depends on the seed and the content of the files alone; its file names every picture with its hash."""
    found = of(photos)
    for place in sorted((photos / "cat").iterdir()):
        place.rename(place.with_name(f"x{10 - int(place.stem)}.png"))
    assert [p.sha256 for p in of(photos).held_out] == [p.sha256 for p in found.held_out]
    assert names(of(photos, seed=1).held_out) != names(of(photos).held_out)
    said = json.loads(found.to_json())
    assert (said["folder"], said["classes"]) == (str(photos), ["cat", "dog", "yak"])
    first = found.held_out[0]
    assert said["held_out"][0] == {"file": first.name, "label": first.label, "sha256": first.sha256}

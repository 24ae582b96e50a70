"""The pictures in a user's folder: which are taken, in which order, and what happens to those that cannot be read."""

import logging
import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from models import pictures
from models.files import CheckpointError

SIDE = 32


def paint(place: Path, shade: int) -> Path:
    """Write a grey picture, in the format of its suffix, and return its place."""
    place.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (SIDE, SIDE), (shade,) * 3).save(place)
    return place


def shades(folder: Path, most: int = 512) -> list[int]:
    """Return the shade of each picture that is read, in order, rounded to tens, because JPEG and WebP lose some."""
    return [round(float(image.mean()), -1) for image in pictures.read(folder, SIDE, most)]


def test_every_format_is_read(tmp_path: Path) -> None:
    """PNG, JPEG and WebP are read in order of their names, whatever the case of the suffix; other files are not."""
    for shade, name in enumerate(["a.PNG", "b.jpg", "c.JPEG", "d.webp"], 1):
        paint(tmp_path / name, shade * 10)
    (tmp_path / "labels.csv").write_text("a,1")
    assert shades(tmp_path) == [10, 20, 30, 40]
    assert pictures.read(tmp_path, SIDE, 2).shape == (2, 3, SIDE, SIDE)


def test_subfolders_take_turns(tmp_path: Path) -> None:
    """Of many pictures in class folders, at any depth, each folder's first ones are taken."""
    for index in range(5):
        paint(tmp_path / "train" / "cat" / f"{index}.png", 10 + index * 10)
        paint(tmp_path / "train" / "dog" / f"{index}.png", 110 + index * 10)
    paint(tmp_path / "val" / "cat" / "0.png", 200)
    assert shades(tmp_path, 6) == [10, 110, 200, 20, 120, 30]


def test_what_a_mac_leaves_is_not_tried(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Files and folders whose names begin with a dot are no pictures, and no warning mentions them."""
    paint(tmp_path / "x.png", 10)
    (tmp_path / "._x.png").write_bytes(b"\x00\x05\x16\x07Mac OS X")
    paint(tmp_path / ".thumbnails" / "x.png", 20)
    assert shades(tmp_path) == [10]
    assert caplog.text == ""


def test_links_are_followed_once(tmp_path: Path) -> None:
    """A linked folder is read, once; a link to a folder above does not make the walk endless."""
    paint(tmp_path / "elsewhere" / "x.png", 20)
    folder = paint(tmp_path / "mine" / "a.png", 10).parent
    (folder / "loop").symlink_to(folder)
    (folder / "linked").symlink_to(tmp_path / "elsewhere")
    (folder / "again").symlink_to(tmp_path / "elsewhere")
    assert shades(folder) == [10, 20]


def test_unreadable_pictures_are_left_out(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Damaged files are replaced by the next ones; one warning names each with the reason. A pipe is not waited for."""
    whole = paint(tmp_path / "deep" / "b.png", 20).read_bytes()
    paint(tmp_path / "z.png", 10)
    (tmp_path / "a.png").write_bytes(whole[: len(whole) // 2])
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.webp").write_text("no picture")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "pipe.png")
    with caplog.at_level(logging.WARNING):
        assert shades(tmp_path, 2) == [20, 10]
    (record,) = caplog.records
    assert "INT8 is calibrated on 2 pictures; 4 cannot be read: " in record.message
    for reason in ("a.png (", "empty.jpg (not a PNG", "text.webp (not a PNG", "gone.png (No such file"):
        assert f"{tmp_path}/{reason}" in record.message


def test_a_message_names_a_few_of_many(tmp_path: Path) -> None:
    """Of a thousand damaged files the error names some and tells how many there are."""
    for index in range(1000):
        (tmp_path / f"{index:03}.png").touch()
    with pytest.raises(CheckpointError, match=r"1000 cannot be read: .*/019\.png \([^()]*\), and 980 more$"):
        pictures.read(tmp_path, SIDE, 512)


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda folder: None, r"images \(No such file or directory\)"),
        (lambda folder: folder.touch(), r"images \(Not a directory\)"),
        (lambda folder: folder.mkdir(), "found none"),
    ],
    ids=["missing", "file", "empty"],
)
def test_no_picture_is_an_error(make, reason: str, tmp_path: Path) -> None:
    """A folder that is missing, a file or empty is an error that names it and says what was expected."""
    make(tmp_path / "images")
    with pytest.raises(CheckpointError, match=rf"images: expected at least one PNG.*\*\.png, .*; .*{reason}"):
        pictures.read(tmp_path / "images", SIDE, 512)


def test_a_picture_of_another_size_is_prepared(tmp_path: Path) -> None:
    """Pictures of any size and mode become square RGB pixels, as the service prepares them."""
    Image.fromarray(np.full((40, 70), 90, np.uint8)).save(tmp_path / "x.png")
    assert shades(tmp_path) == [90]

"""The labelled images of a folder: one with a subfolder for each class, or one that `python -m models.prepare` wrote.

Files are sent as they are, as the users of a service send theirs.
"""

import io
import itertools
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from loadtest.client.images import File, ImagesError, LabelledImages, from_npz

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
"""Pillow's names of the formats that are sent, whatever the suffix says."""
HELD_OUT = ".held-out.npz"
"""The end of the name of a prepared folder's held-out images."""
SPLIT = ".split.json"
"""The end of the name of a prepared folder's file that names its held-out originals."""
MOST_IMAGES = 2000
MOST_BYTES = 500_000_000
"""The most images of a folder that are sent, and their bytes, which stay in memory."""


@dataclass(frozen=True)
class Original:
    """An image file and the index of its class."""

    place: Path
    label: int


def read(path: Path | None, kind: str) -> LabelledImages:
    """Return the labelled images of an `.npz` file or a folder; without a path, the bundled ones.

    Of a prepared folder, the held-out originals are sent if they are still where they were, else its prepared pixels.
    Raw bodies (`kind`) need pixels.

    Raises:
        ImagesError: there are no images, or they have the wrong content.
    """
    if path is None or not path.is_dir():
        return from_npz(path)
    prepared, splits = sorted(path.glob(f"*{HELD_OUT}")), sorted(path.glob(f"*{SPLIT}"))
    if not prepared and not splits:
        return from_folder(path)
    if kind != "raw" and splits and (originals := _held_out(splits[0])):
        return originals
    if not prepared:
        raise ImagesError(f"{path} was prepared without labelled images: name some with --images")
    return from_npz(prepared[0])


def from_folder(folder: Path) -> LabelledImages:
    """Return the images in a folder with a subfolder for each class, named after it; the classes take turns.

    Names that begin with a dot are left out, such as the `._x.png` that a Mac writes beside `x.png`.

    Raises:
        ImagesError: there are fewer than two subfolders, or no image in them can be read.
    """
    classes = sorted(place.name for place in folder.iterdir() if place.is_dir() and not place.name.startswith("."))
    if len(classes) < 2:
        raise ImagesError(f"{folder}: expected one subfolder for each class, found {', '.join(classes) or 'none'}")
    by_class = [[Original(place, index) for place in _pictures(folder / name)] for index, name in enumerate(classes)]
    turns = (one for row in itertools.zip_longest(*by_class) for one in row if one)
    images = _sent(turns, classes)
    if not len(images):
        raise ImagesError(f"{folder}: no PNG, JPEG or WebP image can be read; {'; '.join(images.left_out) or 'none'}")
    return images


def _pictures(folder: Path) -> Iterator[Path]:
    for place in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in place.relative_to(folder).parts)
        if not hidden and place.name.lower().endswith(SUFFIXES) and place.is_file():
            yield place


def _held_out(split: Path) -> LabelledImages | None:
    """Return the originals that the split of a prepared folder holds out; None if one of them is gone."""
    try:
        said = json.loads(split.read_text())
        classes, folder = said["classes"], Path(said["folder"])
        originals = [Original(folder / one["file"], classes.index(one["label"])) for one in said["held_out"]]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ImagesError(
            f"{split} does not say which images are held out ({error}); prepare the folder again"
        ) from None
    if not originals or not all(one.place.is_file() for one in originals):
        return None
    return _sent(iter(originals), classes)


def _sent(originals: Iterator[Original], classes: Sequence[str]) -> LabelledImages:
    """Return the first originals that can be read, up to MOST_IMAGES and MOST_BYTES."""
    files: list[File] = []
    labels: list[int] = []
    left_out: list[str] = []
    size = 0
    for original in originals:
        if len(files) == MOST_IMAGES or size > MOST_BYTES:
            break
        try:
            file = _file(original.place)
        except Exception as error:  # noqa: BLE001 - Pillow raises anything on damaged bytes: SyntaxError, struct.error
            left_out.append(f"{original.place} cannot be read ({error})")
            continue
        files.append(file)
        labels.append(original.label)
        size += len(file.content)
        size += len(file.content)
    return LabelledImages(None, np.array(labels, np.int64), tuple(classes), tuple(files), tuple(left_out))


def _file(place: Path) -> File:
    content = place.read_bytes()
    with Image.open(io.BytesIO(content), formats=FORMATS) as image:
        image.load()
        return File(content, f"image/{(image.format or '').lower()}")

"""The pictures in a user's folder: found, read and prepared for the network. Imports no torch."""

import itertools
import logging
import os
import stat
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models import preprocess
from models.cifar10 import Images
from models.files import CheckpointError

logger = logging.getLogger(__name__)

SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
FORMATS = ("PNG", "JPEG", "WEBP")
"""Pillow's names of the formats that are read, whatever the suffix says."""
MOST_NAMED = 20
"""Unreadable files that one message names; of more it tells the number."""


@dataclass(frozen=True)
class Listing:
    """The pictures below a folder by their names, before any is read, and the folders that cannot be listed."""

    pictures: tuple[Path, ...]
    """The first picture of every folder, then the second of every folder, and so on."""
    closed: tuple[OSError, ...]
    """The reason for each folder that cannot be listed; its `filename` is the folder."""


@dataclass(frozen=True)
class Decoded:
    """The pictures among some files that could be read."""

    pixels: tuple[NDArray[np.uint8], ...]
    """Each `[3, side, side]`."""
    indices: tuple[int, ...]
    """The index of each one's file."""
    unread: tuple[str, ...]
    """A phrase for each file that cannot be read, with the reason."""


def read(folder: Path, side: int, most: int, resize: int | None = None) -> Images:
    """Return up to `most` pictures in a folder and its subfolders as `[N, 3, side, side] uint8`.

    Folders take turns, so that each is represented, and a folder's pictures come in order of their names. What cannot
    be read is left out, and one warning names it.

    Raises:
        CheckpointError: no picture can be read.
    """
    listing = listed(folder)
    found = decoded(filter(may_be_read, listing.pictures), side, most, resize)
    unread = [*(reason(Path(error.filename), error) for error in listing.closed), *found.unread]
    if not found.pixels:
        raise CheckpointError(
            f"{folder}: expected at least one PNG, JPEG or WebP picture (named *{', *'.join(SUFFIXES)}) there or in a "
            f"subfolder, to calibrate INT8 on; {sentence(unread) if unread else 'found none'}"
        )
    if unread:
        logger.warning("INT8 is calibrated on %d pictures; %s", len(found.pixels), sentence(unread))
    return np.stack(found.pixels)


def decoded(places: Iterable[Path], side: int, most: int, resize: int | None = None) -> Decoded:
    """Return the first `most` pictures that can be read, prepared as the service prepares them."""
    pixels: list[NDArray[np.uint8]] = []
    indices: list[int] = []
    unread: list[str] = []
    for index, place in enumerate(places):
        try:
            pixels.append(pixels_of(place, side, resize))
            indices.append(index)
        except Exception as error:  # noqa: BLE001 - Pillow raises anything on damaged bytes: SyntaxError, struct.error
            unread.append(reason(place, error))
        if len(pixels) == most:
            break
    return Decoded(tuple(pixels), tuple(indices), tuple(unread))


def listed(folder: Path) -> Listing:
    """Return the pictures in a folder and its subfolders.

    Names that begin with a dot are left out, such as the `._x.png` that a Mac writes beside `x.png`. Links are
    followed, and each folder is visited once, however many links lead to it.
    """
    closed: list[OSError] = []
    seen: set[tuple[int, int]] = set()
    folders = []
    for path, subfolders, names in os.walk(folder, onerror=closed.append, followlinks=True):
        status = Path(path).stat()
        identity = status.st_dev, status.st_ino
        subfolders[:] = () if identity in seen else sorted(_visible(subfolders))
        if identity not in seen:
            folders.append([Path(path, name) for name in sorted(_visible(names)) if _is_picture(name)])
        seen.add(identity)
    turns = itertools.chain.from_iterable(itertools.zip_longest(*folders))
    return Listing(tuple(place for place in turns if place), tuple(closed))


def _visible(names: Iterable[str]) -> Iterable[str]:
    return (name for name in names if not name.startswith("."))


def _is_picture(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def may_be_read(place: Path) -> bool:
    """Return False for a pipe or a device, which could block; True for a broken link, whose reading says the reason."""
    try:
        return stat.S_ISREG(place.stat().st_mode)
    except OSError:
        return True


def pixels_of(place: Path, side: int, resize: int | None = None) -> NDArray[np.uint8]:
    """Return a picture as `[3, side, side] uint8`, see `models.preprocess.to_pixels`."""
    with Image.open(place, formats=FORMATS) as image:
        return preprocess.to_pixels(image, side, resize)


def reason(place: Path, error: Exception) -> str:
    """Return the phrase that names a file and the reason why it cannot be read."""
    if isinstance(error, UnidentifiedImageError):
        return f"{place} (not a PNG, JPEG or WebP file)"
    strerror = error.strerror if isinstance(error, OSError) else None
    return f"{place} ({strerror or str(error) or type(error).__name__})"


def sentence(unread: Sequence[str], are: str = "cannot be read") -> str:
    """Return the number of these phrases and the first MOST_NAMED of them."""
    more = f", and {len(unread) - MOST_NAMED} more" if len(unread) > MOST_NAMED else ""
    return f"{len(unread)} {are}: {', '.join(unread[:MOST_NAMED])}{more}"

"""The pictures in a user's folder, to calibrate INT8 on. Imports no torch."""

import itertools
import logging
import os
import stat
from collections.abc import Iterable
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


def read(folder: Path, side: int, most: int) -> Images:
    """Return up to `most` pictures in a folder and its subfolders as `[N, 3, side, side] uint8`.

    Folders take turns, so that each is represented, and a folder's pictures come in order of their names. What cannot
    be read is left out, and one warning names it.

    Raises:
        CheckpointError: no picture can be read.
    """
    listing = listed(folder)
    pixels: list[NDArray[np.uint8]] = []
    unread = [_reason(Path(error.filename), error) for error in listing.closed]
    for place in filter(_may_be_read, listing.pictures):
        if len(pixels) == most:
            break
        try:
            pixels.append(_pixels(place, side))
        except Exception as error:  # noqa: BLE001 - Pillow raises anything on damaged bytes: SyntaxError, struct.error
            unread.append(_reason(place, error))
    if not pixels:
        raise CheckpointError(
            f"{folder}: expected at least one PNG, JPEG or WebP picture (named *{', *'.join(SUFFIXES)}) there or in a "
            f"subfolder, to calibrate INT8 on; {_sentence(unread) if unread else 'found none'}"
        )
    if unread:
        logger.warning("INT8 is calibrated on %d pictures; %s", len(pixels), _sentence(unread))
    return np.stack(pixels)


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


def _may_be_read(place: Path) -> bool:
    """Return False for a pipe or a device, which could block; True for a broken link, whose reading says the reason."""
    try:
        return stat.S_ISREG(place.stat().st_mode)
    except OSError:
        return True


def _pixels(place: Path, side: int) -> NDArray[np.uint8]:
    with Image.open(place, formats=FORMATS) as image:
        return preprocess.to_pixels(image, side)


def _reason(place: Path, error: Exception) -> str:
    if isinstance(error, UnidentifiedImageError):
        return f"{place} (not a PNG, JPEG or WebP file)"
    strerror = error.strerror if isinstance(error, OSError) else None
    return f"{place} ({strerror or str(error) or type(error).__name__})"


def _sentence(unread: list[str]) -> str:
    more = f", and {len(unread) - MOST_NAMED} more" if len(unread) > MOST_NAMED else ""
    return f"{len(unread)} cannot be read: {', '.join(unread[:MOST_NAMED])}{more}"

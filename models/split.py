"""The split of a user's pictures: those that calibrate INT8, and those held out to judge accuracy. Imports no torch.

The split depends on the content of the files and a seed, not on their names or order, so it can be made again. An added
picture leaves most others in their part.
"""

import hashlib
import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from models.labelled import Folder, Picture

SUFFIX = ".split.json"
"""The end of a split's name, see `models.files.beside`."""
SHARE = 0.8
MOST_HELD_OUT = 2000
"""The share of the pictures that is held out, and the most, unless a user says otherwise."""


@dataclass(frozen=True)
class Split:
    """The two parts of a folder's pictures, the classes taking turns in each, so that a prefix is balanced."""

    folder: Path
    seed: int
    classes: tuple[str, ...]
    """The names of the network's classes in the order of its outputs."""
    calibration: tuple[Picture, ...]
    held_out: tuple[Picture, ...]
    left_out: tuple[str, ...]

    def to_json(self) -> bytes:
        """Return the content of its file: every picture by name and SHA-256."""
        content = {
            "folder": str(self.folder.resolve()),
            "seed": self.seed,
            "classes": self.classes,
            "calibration": [_entry(picture) for picture in self.calibration],
            "held_out": [_entry(picture) for picture in self.held_out],
            "left_out": self.left_out,
        }
        return (json.dumps(content, indent=1, ensure_ascii=False) + "\n").encode()


def _entry(picture: Picture) -> dict[str, str | None]:
    return {"file": picture.name, "label": picture.label, "sha256": picture.sha256}


def split(folder: Folder, classes: Sequence[str], held_out: float | None, seed: int) -> Split:
    """Divide the pictures of every class in the same proportion. Pictures without a label calibrate.

    Args:
        folder: the pictures.
        classes: the names of the network's classes.
        held_out: the share of the pictures that is held out, below 1, or their number, from 1. None takes SHARE, at
            most MOST_HELD_OUT. Of a class with two pictures or more, at least one is in each part.
        seed: chooses the pictures.
    """
    by_class: dict[str | None, list[Picture]] = {}
    for picture in sorted(folder.pictures, key=lambda picture: _rank(picture, seed)):
        by_class.setdefault(picture.label, []).append(picture)
    share = _share(held_out, len(folder.pictures))
    counts = {label: _count(label, len(own), share) for label, own in by_class.items()}
    ordered = sorted(by_class.items(), key=lambda item: item[0] or "")
    judging = _in_turns(own[: counts[label]] for label, own in ordered)
    calibrating = _in_turns(own[counts[label] :] for label, own in ordered)
    return Split(folder.path, seed, tuple(classes), calibrating, judging, folder.left_out)


def _rank(picture: Picture, seed: int) -> str:
    return hashlib.sha256(f"{seed} {picture.sha256}".encode()).hexdigest()


def _share(held_out: float | None, pictures: int) -> float:
    if held_out is None:
        return min(SHARE, MOST_HELD_OUT / pictures)
    return held_out if held_out < 1 else held_out / pictures


def _count(label: str | None, pictures: int, share: float) -> int:
    """Return how many pictures of a class are held out."""
    if label is None or pictures < 2:
        return 0
    return min(max(round(share * pictures), 1), pictures - 1)


def _in_turns(classes: Iterable[Sequence[Picture]]) -> tuple[Picture, ...]:
    return tuple(one for turn in itertools.zip_longest(*classes) for one in turn if one)

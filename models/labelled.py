"""A user's folder of pictures: a subfolder for each class, as torchvision's `ImageFolder` reads it. Imports no torch.

A folder without subfolders holds pictures without labels.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tqdm import tqdm

from models import pictures
from models.files import CheckpointError

SHOWN = 20
"""The most names of classes that a sentence lists."""


@dataclass(frozen=True)
class Picture:
    """A file with a picture."""

    place: Path
    name: str
    """Its path below the folder, with `/`."""
    label: str | None
    """The name of its class; None without a label."""
    sha256: str
    """The hash of the file."""


@dataclass(frozen=True)
class Folder:
    """The pictures in a folder."""

    path: Path
    classes: tuple[str, ...]
    """The names of its subfolders, sorted; empty if it has none."""
    pictures: tuple[Picture, ...]
    left_out: tuple[str, ...]
    """A phrase for each file that is left out, with its reason."""


def read(folder: Path, *, shows_progress: bool = False) -> Folder:
    """Return the pictures in a folder, each file with its hash. A file that repeats an earlier one is left out.

    Names that begin with a dot are ignored.

    Args:
        folder: the folder. Where it has subfolders, pictures beside them have no class and are left out.
        shows_progress: True shows a bar on a terminal.

    Raises:
        CheckpointError: the folder cannot be listed, or holds no picture.
    """
    classes = _subfolders(folder)
    listing = pictures.listed(folder)
    left_out = [pictures.reason(Path(error.filename), error) for error in listing.closed]
    found: dict[str, Picture] = {}
    places = [place for place in listing.pictures if pictures.may_be_read(place)]
    for place in tqdm(places, "listing", unit="img", leave=False, disable=None if shows_progress else True):
        name = place.relative_to(folder).as_posix()
        label = name.partition("/")[0] if classes else None
        if classes and label not in classes:
            left_out.append(f"{place} (beside the subfolders, so without a class)")
            continue
        try:
            digest = hashlib.sha256(place.read_bytes()).hexdigest()
        except OSError as error:
            left_out.append(pictures.reason(place, error))
            continue
        if (first := found.get(digest)) is not None:
            left_out.append(f"{place} (the same file as {first.name})")
        else:
            found[digest] = Picture(place, name, label, digest)
    if not found:
        raise CheckpointError(
            f"{folder}: expected PNG, JPEG or WebP pictures (named *{', *'.join(pictures.SUFFIXES)}), one subfolder "
            f"for each class; {pictures.sentence(left_out, 'are left out') if left_out else 'found none'}"
        )
    return Folder(folder, classes, tuple(found.values()), tuple(left_out))


def _subfolders(folder: Path) -> tuple[str, ...]:
    try:
        return tuple(sorted(p.name for p in folder.iterdir() if p.is_dir() and not p.name.startswith(".")))
    except OSError as error:
        raise CheckpointError(f"{folder} cannot be listed: {error.strerror}") from error


def match(folder: Folder, classes: Sequence[str] | None, count: int) -> tuple[str, ...]:
    """Return the names of a network's classes in the order of its outputs, for the pictures of a folder.

    Args:
        folder: a folder with subfolders.
        classes: the names that are known. The subfolders must be among them; some classes may have none. If None, the
            sorted subfolders are the classes, as in `ImageFolder`.
        count: how many classes the network has.

    Raises:
        CheckpointError: folder and network do not fit; the sentence lists the classes of both.
    """
    if classes is None:
        if len(folder.classes) != count:
            raise CheckpointError(
                f"the network has {count} classes, and {folder.path} has {listed(folder.classes)}; --classes FILE "
                "names the network's classes, one a line, and --images the folder that holds one subfolder for each"
            )
        return folder.classes
    unknown = [name for name in folder.classes if name not in classes]
    if unknown:
        raise CheckpointError(
            f"{folder.path} has subfolders that the network does not know as classes: {', '.join(unknown[:SHOWN])}. "
            f"The folder has {listed(folder.classes)}; the network has {listed(classes)}"
        )
    return tuple(classes)


def listed(names: Sequence[str]) -> str:
    """Return names in words, such as `3 classes (cat, dog, horse)`."""
    more = ", ..." if len(names) > SHOWN else ""
    return f"{len(names)} classes ({', '.join(names[:SHOWN])}{more})"

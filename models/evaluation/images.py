"""The labelled images that judge a network: CIFAR-10's test set, a prepared folder's held-out ones, or a user's own."""

import io
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from tqdm import tqdm

from models import cifar10, files, labelled, pictures, preprocess
from models.card import Card, names_of
from models.cifar10 import Labels
from models.files import CheckpointError
from models.labelled import Picture
from models.sample import Labelled

HELD_OUT = ".held-out.npz"
"""The end of the name of a prepared folder's held-out images, see `models.files.beside`."""


def chosen(images: Path | None, checkpoint: Path, data: Path, card: Card) -> Labelled:
    """Return the images that judge a network.

    Args:
        images: a folder with one subfolder for each class, or a .npz; None for the held-out images beside the
            checkpoint, or else CIFAR-10's test set.
        checkpoint: the network's file.
        data: the folder of CIFAR-10.
        card: the network's card, completed (see `models.checkpoint.inspect`).

    Raises:
        CheckpointError: the images cannot be read, or are of other classes than the network's.
        DatasetError: CIFAR-10 is missing or damaged.
    """
    beside = files.beside(checkpoint, HELD_OUT)
    if images and images.is_dir():
        return from_folder(images, card)
    if images or beside.exists():
        return from_npz(images or beside, card.labels)
    return cifar10_test(data, checkpoint, card.labels)


def cifar10_test(data: Path, checkpoint: Path, classes: Sequence[str]) -> Labelled:
    """Return CIFAR-10's test set, for a network with its classes in any order."""
    if set(classes) != set(cifar10.CLASSES):
        raise CheckpointError(
            f"{checkpoint} has the classes {', '.join(classes)}, and CIFAR-10's test set has "
            f"{', '.join(cifar10.CLASSES)}: give labelled images of your own with --images FOLDER, or name the "
            "network's classes with --classes FILE"
        )
    images, labels = cifar10.read(data, "test")
    source = "CIFAR-10 test_batch.bin, in official order, SHA-1 verified"
    return Labelled(images, _places(cifar10.CLASSES, classes)[labels], tuple(classes), source)


def from_npz(place: Path, classes: Sequence[str]) -> Labelled:
    """Return the images of a .npz as `Labelled.packed` writes it; its classes are matched by name."""
    try:
        with np.load(io.BytesIO(files.read(place))) as content:
            images, labels = content["images"], content["labels"].astype(np.int64)
            named = tuple(map(str, content["classes"])) if "classes" in content else tuple(classes)
    except files.BROKEN_NPZ as error:
        raise CheckpointError(f"{place} is no .npz with the arrays images and labels ({error})") from error
    if not set(named) <= set(classes):
        raise CheckpointError(f"{place} has the classes {', '.join(named)}; the network has {', '.join(classes)}")
    return Labelled(images, _places(named, classes)[labels], tuple(classes), place.name)


def from_folder(folder: Path, card: Card) -> Labelled:
    """Return the pictures in a folder with one subfolder for each class, prepared for the network."""
    found = labelled.read(folder)
    if not found.classes:
        raise CheckpointError(f"{folder}: expected one subfolder for each class, found none, so nothing can be judged")
    numbered = card.labels == names_of(Card(), len(card.labels))
    classes = labelled.match(found, None if numbered else card.labels, len(card.labels))
    judging, _, unread = of_pictures(
        found.pictures, classes, (card.input_size or preprocess.SIDE, card.resize), folder.name
    )
    left_out = (*found.left_out, *unread)
    if left_out:
        tqdm.write(pictures.sentence(left_out, "are left out"), file=sys.stderr)
    return judging


def of_pictures(
    chosen: Sequence[Picture], classes: Sequence[str], inputs: tuple[int, int | None], source: str
) -> tuple[Labelled, tuple[Picture, ...], tuple[str, ...]]:
    """Return labelled pictures, prepared for a network; those that could be read; and a phrase for each other one.

    Args:
        chosen: the pictures.
        classes: the names of the network's classes.
        inputs: the side of the network's images, and the length that the shorter side is resized to, if any.
        source: the name of the pictures, for the progress and for a report.

    Raises:
        CheckpointError: no picture can be read.
    """
    side, resize = inputs
    places = tqdm([picture.place for picture in chosen], f"reading {source}", unit="img", leave=False, disable=None)
    found = pictures.decoded(places, side, len(chosen), resize)
    if not found.pixels:
        raise CheckpointError(f"{source}: {pictures.sentence(found.unread)}")
    kept = tuple(chosen[index] for index in found.indices)
    labels = np.array([classes.index(picture.label or "") for picture in kept], np.int64)
    return Labelled(np.stack(found.pixels), labels, tuple(classes), source), kept, found.unread


def _places(names: Sequence[str], classes: Sequence[str]) -> Labels:
    """Return the index of each name among the classes."""
    return np.array([classes.index(name) for name in names], np.int64)

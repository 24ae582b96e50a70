"""Write the bundled sample and a checkpoint's logits on it: `python -m models.sample --data DIR --checkpoint FILE`.

The sample (`models/weights/sample.npz`) holds 30 official test images of each class: images, labels and their indices
in the test set. The logits (`NAME.sample.npz` beside the checkpoint) are the reference of the self-test: torchvision's
network in FP32, not folded, not fused (models.oracle).

A checkpoint can have a labelled sample of its own beside it (`NAME.images.npz`), with the same arrays.
"""

import argparse
import io
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import checkpoint, cifar10, files
from models.card import Card
from models.command import one_sentence
from models.flags import add_input, input_of
from models.oracle import packed_logits
from models.reference import SUFFIX

PER_CLASS = 30
SEED = 2024
IMAGES_SUFFIX = ".images.npz"
"""The end of the name of a checkpoint's own labelled sample, see `models.files.beside`."""


@dataclass(frozen=True)
class Labelled:
    """Images whose classes are known."""

    images: NDArray[np.uint8]
    """`[N, 3, H, W] uint8`, RGB, channel first."""
    labels: NDArray[np.int64]
    """`[N] int64`, indices into the classes."""
    classes: tuple[str, ...]
    """The names of the network's classes, in the order of its outputs."""
    source: str
    """The file or the data set that they come from, for people."""

    def first(self, count: int) -> "Labelled":
        """Return the first images."""
        return replace(self, images=self.images[:count], labels=self.labels[:count])

    def packed(self) -> bytes:
        """Return a .npz with the arrays `images`, `labels` and `classes`."""
        content = io.BytesIO()
        classes = np.array(self.classes)
        np.savez_compressed(content, images=self.images, labels=self.labels, classes=classes)
        return content.getvalue()


def labelled_sample(path: Path, card: Card) -> Labelled | None:
    """Return labelled images for the checkpoint at `path`; None if none are at hand.

    They are the checkpoint's own, if they lie beside it. Else they are the bundled ones, if the network has CIFAR-10's
    classes in some order.

    Raises:
        CheckpointError: the file beside the checkpoint is damaged or does not fit its classes.
    """
    place, classes = files.beside(path, IMAGES_SUFFIX), card.labels
    if place.exists():
        return _own_sample(place, classes)
    if sorted(classes) != sorted(cifar10.CLASSES):
        return None
    images, labels = cifar10.sample()
    return Labelled(images, _in_order(labels, cifar10.CLASSES, classes), classes, cifar10.SAMPLE.name)


def _in_order(labels: NDArray[np.int64], names: Sequence[str], classes: Sequence[str]) -> NDArray[np.int64]:
    """Return indices into `classes` for the labels, which are indices into `names`, the same names in some order."""
    return np.array([classes.index(name) for name in names], np.int64)[labels]


def _own_sample(place: Path, classes: tuple[str, ...]) -> Labelled:
    """Return the sample in a file. If it names its classes and they are the network's, the names decide, not the order.

    Raises:
        CheckpointError: see `labelled_sample`.
    """
    try:
        with np.load(io.BytesIO(place.read_bytes())) as content:
            images, labels = content["images"], content["labels"].astype(np.int64)
            names = content["classes"].tolist() if "classes" in content else classes
        if images.dtype != np.uint8 or images.ndim != 4 or images.shape[1] != 3 or labels.shape != images.shape[:1]:
            raise ValueError("expected images [N, 3, H, W] uint8 and labels [N]")
        if not len(labels) or labels.min() < 0 or labels.max() >= len(classes):
            raise ValueError(f"expected at least one image, and labels from 0 to {len(classes) - 1}")
    except files.BROKEN_NPZ as error:
        raise files.CheckpointError(
            f"{place} is no labelled sample of this checkpoint ({error}); delete it, or prepare the checkpoint again"
        ) from error
    is_known = sorted(names) == sorted(classes)
    return Labelled(images, _in_order(labels, names, classes) if is_known else labels, classes, place.name)


def choose(labels: cifar10.Labels) -> NDArray[np.int64]:
    """Return the indices of PER_CLASS random images of each class (by SEED), the classes taking turns."""
    order = np.random.default_rng(SEED).permutation(len(labels))
    columns = [order[labels[order] == index][:PER_CLASS] for index in range(len(cifar10.CLASSES))]
    return np.stack(columns, axis=1).reshape(-1)


def packed_sample(data: Path) -> tuple[bytes, cifar10.Images]:
    """Return the file with the sample that is chosen from the official test images under `data`, and its images."""
    images, labels = cifar10.read(data, "test")
    chosen = choose(labels)
    content = io.BytesIO()
    np.savez_compressed(
        content, images=images[chosen], labels=labels[chosen], indices=chosen, classes=np.array(cifar10.CLASSES)
    )
    return content.getvalue(), images[chosen]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m models.sample", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="holds cifar-10-batches-bin/; without it only the logits are written")
    parser.add_argument("--checkpoint", type=Path, default=files.default_path(), help="(%(default)s)")
    add_input(parser)
    args = parser.parse_args(argv)
    place, contents = files.beside(args.checkpoint, SUFFIX), {}
    with one_sentence():
        if args.data:
            contents[cifar10.SAMPLE], images = packed_sample(args.data)
        else:
            images, _ = cifar10.sample()
        contents[place] = packed_logits(*checkpoint.load(args.checkpoint, input_of(args)), images)
        files.write_all(contents)
    if args.data:
        print(f"{cifar10.SAMPLE}: {len(contents[cifar10.SAMPLE]):,} bytes")
    print(f"{place}: FP32 logits of {len(images)} images")


if __name__ == "__main__":
    main()

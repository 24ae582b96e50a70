"""The card of a checkpoint: the JSON beside it, or the metadata of an INT8 artifact. Imports no torch."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from models import naming
from models.files import ARTIFACT_SUFFIX, BUNDLED, CheckpointError, beside, default_path, read, resolve, sha256
from models.topology import STEMS, Architecture, Input, Network, Shapes, Spec, detect, topology


@dataclass(frozen=True)
class Card:
    """The origin of a checkpoint, its images and its accuracy. A field that is unknown is None."""

    command: str | None = None
    recipe: dict[str, Any] | None = None
    seed: int | None = None
    epochs: int | None = None
    hardware: str | None = None
    training_seconds: int | None = None
    test_accuracy: float | None = None
    """Top-1 (0 to 1) of the plain FP32 network on the `test_images` first official test images."""
    test_images: int | None = None
    note: str | None = None
    """Remarks for people."""
    torch: str | None = None
    date: str | None = None
    """ISO 8601, UTC."""
    architecture: str | None = None
    started_from: dict[str, Any] | None = None
    """The card of the checkpoint that the training continued."""
    classes: tuple[str, ...] | None = None
    """The names of the classes in the order of the network's outputs."""
    input_size: int | None = None
    """Height and width of its images in pixels."""
    resize: int | None = None
    """Length in pixels to which the shorter side of an image is resized before its centre is cut out; None: the largest
    centred square is resized to the input size."""
    max_pool: bool | None = None
    """True if a max-pool follows the stem, which no shape shows; None: as is usual for the stem."""
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    """Normalisation of the images: mean and standard deviation of each channel, on the scale 0 to 1."""
    taken_from: str | None = None
    """Which part of the file the weights are, where it has several: its keys, and the keys beside it."""
    sha256: str = ""
    """The hash of the file. For an INT8 artifact, the hash of the checkpoint that it was made from."""
    bytes: int = 0
    """Size of the file."""

    @property
    def labels(self) -> tuple[str, ...]:
        """Return the names of the classes; none where they are unknown."""
        return self.classes or ()

    def plan(self, found: Shapes) -> Network[Spec]:
        """Return the layers of the state dict with these shapes, for the images that the card tells.

        Raises:
            CheckpointError: the state dict is no ResNet, or the card does not fit it or does not tell the images.
        """
        try:
            architecture = detect(found)
        except ValueError as error:
            place = f"; the weights are {self.taken_from}" if self.taken_from else ""
            probably = f"; most likely {reason}" if (reason := naming.cause(found)) else ""
            raise CheckpointError(f"the checkpoint does not fit: {error}{place}{probably}") from error
        if self.max_pool is not None:
            architecture = replace(architecture, max_pool=self.max_pool)
        return topology(architecture, self.input_for(architecture))

    def input_for(self, architecture: Architecture) -> Input:
        """Return the images that the checkpoint takes; a checkpoint with the stem `cifar` takes CIFAR-10's by default.

        Raises:
            CheckpointError: the card does not say it, and the stem has no default.
        """
        usual = Input()
        if architecture.stem != "cifar" and None in (self.input_size, self.mean, self.std):
            raise CheckpointError(
                f"the checkpoint ({architecture.sentence}) does not say which images it was trained on: give "
                "--input-size, --mean and --std, or a card beside it with input_size, mean and std (--like imagenet "
                "stands for those of torchvision's ImageNet weights)"
            )
        try:
            return Input(
                usual.side if self.input_size is None else self.input_size,
                usual.mean if self.mean is None else self.mean,
                usual.std if self.std is None else self.std,
                self.resize,
            )
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"the images of the checkpoint: {error}") from error

    def completed(self, network: Network[Any]) -> Card:
        """Return the card with what the network tells: architecture, images and the names of the classes.

        Raises:
            CheckpointError: see `names_of`.
        """
        inputs, architecture = network.input, network.architecture
        return replace(
            self, architecture=architecture.sentence, max_pool=architecture.max_pool,
            classes=names_of(self, architecture.classes),
            input_size=inputs.side, mean=inputs.mean, std=inputs.std, resize=inputs.resize,
        )  # fmt: skip


@dataclass(frozen=True)
class Preparation:
    """A user's own words on a checkpoint and its images; they override its card."""

    input_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    calibration_images: Path | None = None
    """A folder of pictures to calibrate INT8 on (models.pictures), instead of the calibration beside the checkpoint."""

    classes: Path | None = None
    """A text file with the names of the classes, one a line."""
    max_pool: bool | None = None
    resize: int | None = None

    def over(self, card: Card) -> Card:
        """Return the card with the user's values.

        Raises:
            CheckpointError: the file of classes cannot be read, or holds no names.
        """
        names = ("input_size", "mean", "std", "max_pool", "resize")
        said: dict[str, Any] = {name: value for name in names if (value := getattr(self, name)) is not None}
        return replace(card, **said | ({"classes": read_classes(self.classes)} if self.classes else {}))


AS_IT_SAYS = Preparation()
"""Overrides nothing."""


def read_card(path: Path | None = None, preparation: Preparation = AS_IT_SAYS) -> Card:
    """Return the card of the checkpoint or INT8 artifact at `path` (None: `default_path()`), with the user's values.

    Only the bundled checkpoint must have a card. A field that a card lacks has its default.

    Raises:
        CheckpointError: the file is no card, or the bundled card is missing, or the user contradicts an INT8 artifact.
    """
    path = resolve(path or default_path())
    if path.name.endswith(ARTIFACT_SUFFIX):
        card = artifact_card(path)
        if preparation.over(card) != card or preparation.calibration_images:
            raise CheckpointError(
                f"{path} is an INT8 artifact: input size ({card.input_size}), mean, std and calibration are part of "
                "it, so leave those flags out; `python -m models.quantize` writes another"
            )
        return card
    place = beside(path, ".json")
    card = parse_card(read(place), place) if place.exists() or path == BUNDLED else Card()
    if not card.sha256:
        card = replace(card, sha256=sha256(read(path)))
    return preparation.over(card)


def parse_card(data: bytes, place: Path) -> Card:
    """Return the card in a JSON file's content.

    Raises:
        CheckpointError: it is no card, or has a field that no card has.
    """
    try:
        content: dict[str, Any] = json.loads(data)
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}
        card = Card(**values)
        check_classes(card.classes)
        return card
    except (ValueError, TypeError, AttributeError) as error:
        names = ", ".join(f.name for f in fields(Card))
        raise CheckpointError(
            f"{place} is not a model card ({error}); expected a JSON object with any of {names}"
        ) from error


def check_classes(classes: object) -> None:
    """Raise ValueError unless `classes` is None or a tuple of at least two different names."""
    if classes is None:
        return
    are_names = isinstance(classes, tuple) and all(isinstance(name, str) and name for name in classes)
    if not (are_names and isinstance(classes, tuple) and len(classes) == len(set(classes)) > 1):
        raise ValueError(f"classes: expected at least two different names, got {classes!r}")


def names_of(card: Card, count: int) -> tuple[str, ...]:
    """Return the card's names of the classes, else `class 0`, `class 1`, ...

    Raises:
        CheckpointError: the card has another number of names than the network has classes.
    """
    if card.classes is None:
        return tuple(f"class {index}" for index in range(count))
    if len(card.classes) != count:
        raise CheckpointError(f"there are {len(card.classes)} names of classes for a network with {count} classes")
    return card.classes


def read_classes(place: Path) -> tuple[str, ...]:
    """Return the names of classes in a text file, one a line; empty lines at its end are ignored.

    Raises:
        CheckpointError: the file cannot be read, or the names are not at least two different ones.
    """
    try:
        lines = place.read_text(encoding="utf-8-sig").rstrip().splitlines()
        names = naming.distinct(line.strip() for line in lines)
        check_classes(names)
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{place}: expected the names of the classes, one a line ({error})") from error
    return names


def artifact_card(path: Path) -> Card:
    """Return the card in the metadata of an INT8 artifact.

    Raises:
        CheckpointError: the file is missing, damaged, or no INT8 artifact.
    """
    size = len(read(path))
    try:
        with safe_open(path, "np") as file:
            about = file.metadata() or {}
        inputs, classes = Input.of(json.loads(about["input"])), tuple(json.loads(about["classes"]))
        check_classes(classes)
        card = Card(classes=classes, sha256=about["checkpoint_sha256"], bytes=size)
        return card.completed(topology(architecture_of(about), inputs))
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged or no INT8 artifact ({error}); write it again: `python -m models.quantize --help`"
        ) from error


def architecture_of(about: Mapping[str, str]) -> Architecture:
    """Return the architecture in the metadata of an INT8 artifact; artifacts of version 3 are ResNet18s."""
    if "architecture" in about:
        return Architecture(**json.loads(about["architecture"]))
    stem = about["stem"]
    return Architecture(18, stem, STEMS[stem].has_max_pool, len(json.loads(about["classes"])))

"""The card of a checkpoint: the JSON beside it, or the metadata of an INT8 artifact. Imports no torch."""

from __future__ import annotations

import json
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from models import cifar10
from models.files import ARTIFACT_SUFFIX, BUNDLED, CheckpointError, beside, default_path, read, sha256
from models.topology import STEMS, Input


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
    classes: tuple[str, ...] = cifar10.CLASSES
    input_size: int | None = None
    """Height and width of its images in pixels."""
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    """Normalisation of the images: mean and standard deviation of each channel, on the scale 0 to 1."""
    sha256: str = ""
    """The hash of the file. For an INT8 artifact, the hash of the checkpoint that it was made from."""
    bytes: int = 0
    """Size of the file."""

    def input_for(self, stem: str) -> Input:
        """Return the images that the checkpoint takes; a checkpoint with the stem `cifar` takes CIFAR-10's by default.

        Raises:
            CheckpointError: the card does not say it, and the stem (of `models.topology.STEMS`) has no default.
        """
        usual = Input()
        if stem != "cifar" and None in (self.input_size, self.mean, self.std):
            raise CheckpointError(
                f"the checkpoint ({STEMS[stem]}) does not say which images it was trained on: give --input-size, "
                "--mean and --std, or a card beside it with input_size, mean and std (for torchvision's ImageNet "
                "weights: 224, 0.485,0.456,0.406 and 0.229,0.224,0.225)"
            )
        try:
            return Input(
                usual.side if self.input_size is None else self.input_size,
                usual.mean if self.mean is None else self.mean,
                usual.std if self.std is None else self.std,
            )
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"the images of the checkpoint: {error}") from error


@dataclass(frozen=True)
class Preparation:
    """A user's own words on a checkpoint's images; they override its card."""

    input_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    calibration_images: Path | None = None
    """A folder of pictures to calibrate INT8 on (models.pictures), instead of the calibration beside the checkpoint."""

    def over(self, card: Card) -> Card:
        """Return the card with the user's values."""
        said = {name: value for name in ("input_size", "mean", "std") if (value := getattr(self, name)) is not None}
        return replace(card, **said)


AS_IT_SAYS = Preparation()
"""Overrides nothing."""


def read_card(path: Path | None = None, preparation: Preparation = AS_IT_SAYS) -> Card:
    """Return the card of the checkpoint or INT8 artifact at `path` (None: `default_path()`), with the user's values.

    Only the bundled checkpoint must have a card. A field that a card lacks has its default.

    Raises:
        CheckpointError: the file is no card, or the bundled card is missing, or the user contradicts an INT8 artifact.
    """
    path = path or default_path()
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
    """Raise ValueError unless `classes` is one name for each of the ten classes, all different."""
    count = len(cifar10.CLASSES)
    are_names = isinstance(classes, tuple) and all(isinstance(name, str) for name in classes)
    if not (are_names and isinstance(classes, tuple) and len(classes) == len(set(classes)) == count):
        raise ValueError(f"classes: expected {count} different names, got {classes!r}")


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
        return Card(
            classes=classes, architecture=STEMS[about["stem"]],
            input_size=inputs.side, mean=inputs.mean, std=inputs.std,
            sha256=about["checkpoint_sha256"], bytes=size,
        )  # fmt: skip
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged or no INT8 artifact ({error}); write it again: `python -m models.quantize --help`"
        ) from error

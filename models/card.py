"""The model card: what is said of a checkpoint or INT8 artifact. Imports no torch."""

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
    """Where a checkpoint comes from, what images it takes and how good it is. What nobody said is None."""

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
    """What a reader should know besides: how the accuracy came about, what is still owed."""
    torch: str | None = None
    date: str | None = None
    """ISO 8601, UTC."""
    architecture: str | None = None
    started_from: dict[str, Any] | None = None
    """The card of the checkpoint that the training went on from."""
    classes: tuple[str, ...] = cifar10.CLASSES
    input_size: int | None = None
    """Height and width in pixels of the images it takes."""
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    """Of each channel of the images, on the scale 0 to 1."""
    sha256: str = ""
    """Of the file. For an INT8 artifact, of the checkpoint that it was made from."""
    bytes: int = 0

    def taken(self, stem: str) -> Input:
        """What images the checkpoint takes, when its stem is this one of `models.topology.STEMS`.

        Raises:
            CheckpointError: nobody said so, and the stem is not CIFAR-10's.
        """
        usual = Input()
        if stem != "cifar" and None in (self.input_size, self.mean, self.std):
            raise CheckpointError(
                f"the checkpoint ({STEMS[stem]}) does not say what images it was trained on: give --input-size, --mean "
                "and --std, or a card beside it with input_size, mean and std (of torchvision's ImageNet weights: "
                "224, 0.485,0.456,0.406 and 0.229,0.224,0.225)"
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
    """What a user says about a checkpoint's images, over its card."""

    input_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    calibration_images: Path | None = None
    """A folder of images to calibrate INT8 on, in place of a calibration beside the checkpoint."""

    def over(self, card: Card) -> Card:
        said = {name: value for name in ("input_size", "mean", "std") if (value := getattr(self, name)) is not None}
        return replace(card, **said)


AS_IT_SAYS = Preparation()


def read_card(path: Path | None = None, preparation: Preparation = AS_IT_SAYS) -> Card:
    """The card of the checkpoint or INT8 artifact at `path` (None: `default_path()`), with what the user says over it.

    A checkpoint other than the bundled one may come without a card, or with one that says less.

    Raises:
        CheckpointError: the card is none, or is missing and must not be; or the user says of an INT8 artifact what it
            says otherwise itself.
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
    """A card from its JSON.

    Raises:
        CheckpointError: it is not one, or has a field that no card has.
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
    """Raises ValueError unless they are a name for each class."""
    count = len(cifar10.CLASSES)
    are_names = isinstance(classes, tuple) and all(isinstance(name, str) for name in classes)
    if not (are_names and isinstance(classes, tuple) and len(classes) == len(set(classes)) == count):
        raise ValueError(f"classes: expected {count} different names, got {classes!r}")


def artifact_card(path: Path) -> Card:
    """What an INT8 artifact says of itself."""
    size = len(read(path))
    try:
        with safe_open(path, "np") as file:
            about = file.metadata() or {}
        taken, classes = Input.of(json.loads(about["input"])), tuple(json.loads(about["classes"]))
        check_classes(classes)
        return Card(
            classes=classes, architecture=STEMS[about["stem"]], input_size=taken.side, mean=taken.mean, std=taken.std,
            sha256=about["checkpoint_sha256"], bytes=size,
        )  # fmt: skip
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged or no INT8 artifact ({error}); write it again: `python -m models.quantize --help`"
        ) from error

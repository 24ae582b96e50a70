"""The accuracy of an engine on labelled images, and what it says of assumptions that shapes cannot show.

The weights of a network do not tell its normalisation, the order of its channels or of its classes, or whether a
max-pool follows its stem. With a wrong assumption the engines agree with the reference, which shares the assumption,
and only labels show the mistake. Imports no torch.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.statistics import at_least, at_most
from models.card import Card, Preparation
from models.engines.base import EngineInfo
from models.logits import Logits

CHANCE_LEVEL = 0.01
"""An accuracy counts as chance if guessing would reach it more often than this."""
CLAIM_LEVEL = 0.001
"""An accuracy is below the claim if a network of the claimed accuracy would do so badly more rarely than this."""
LEAST_GAP = 0.03
"""The least gap to the claim that counts. Quantization may cost a point, and a claim may be of another split."""
CLEAR = 0.5
"""The accuracy that another order of the classes must give before the warning proposes one."""
ENOUGH = 5
"""The images of each class, on average, that another order must fit. One image a class fits any order."""
SHOWN_NAMES = 12
"""The most class names that a warning lists."""


@dataclass(frozen=True)
class Assumption:
    """One thing that the service assumes of a network, because its weights do not tell."""

    name: str
    value: str
    origin: str
    """Who says so: a flag, the `card`, or nobody (`default`)."""

    def __str__(self) -> str:
        return f"{self.name} {self.value} ({self.origin})"


@dataclass(frozen=True)
class SampleAccuracy:
    """The top-1 accuracy of an engine on labelled images. `dataclasses.asdict` of it is JSON."""

    correct: int
    images: int
    accuracy: float
    """`correct` as a share of `images`, 0 to 1."""
    claimed: float | None
    """The `test_accuracy` of the checkpoint's card."""
    source: str
    """The name of the file with the images."""
    warning: str = ""
    """Sentences if the accuracy is near chance or far below the claim; else empty."""

    @property
    def is_suspect(self) -> bool:
        """True if there is a warning."""
        return bool(self.warning)

    def __str__(self) -> str:
        return self.warning or f"{self.accuracy:.1%} of the {self.images} labelled images of {self.source} are right"


def doubt(correct: int, images: int, classes: int, claimed: float | None) -> str:
    """Return in words what is wrong with an accuracy; empty if nothing is, or if the images are too few to tell.

    - Chance: the exact binomial test does not show, at CHANCE_LEVEL, that the accuracy is above 1 / `classes`.
    - Claim: the accuracy is LEAST_GAP below `claimed`, and the exact binomial test shows it at CLAIM_LEVEL.
    """
    can_tell = at_least(images, images, 1 / classes) <= CHANCE_LEVEL
    if can_tell and at_least(correct, images, 1 / classes) > CHANCE_LEVEL:
        return f"no better than chance, which is {1 / classes:.1%} with {classes} classes"
    is_far = claimed is not None and correct / images < claimed - LEAST_GAP
    if claimed is not None and is_far and at_most(correct, images, claimed) < CLAIM_LEVEL:
        return f"far below the {claimed:.1%} that the card claims"
    return ""


def judged(
    logits: Logits, labels: NDArray[np.int64], claimed: float | None, source: str, assumed: Sequence[Assumption]
) -> SampleAccuracy:
    """Return the accuracy of `[N, classes]` logits on images with these labels, and a warning if it is suspect."""
    predicted, (images, classes) = logits.argmax(1), logits.shape
    correct = int((predicted == labels).sum())
    share, wrong = correct / images, doubt(correct, images, classes, claimed)
    warning = ""
    if wrong:
        warning = (
            f"top-1 accuracy is {share:.1%} on the {images} labelled images of {source}: {wrong}. "
            f"Is the normalisation right? Assumed: {'; '.join(map(str, assumed))}."
        )
        if better := reordered(predicted, labels, classes):
            warning += f" With the classes in another order it would be {better:.1%}: is their order right?"
    return SampleAccuracy(correct, images, share, claimed, source, warning)


def reordered(predicted: NDArray[np.int64], labels: NDArray[np.int64], classes: int) -> float | None:
    """Return the accuracy with the classes in the order that fits best, if that is another order and fits clearly.

    It fits if each label has its own most frequent prediction, and the accuracy is at least CLEAR. With fewer than
    ENOUGH images of each class, no order is proposed.
    """
    counts = np.zeros((classes, classes), np.int64)
    np.add.at(counts, (labels, predicted), 1)
    counts = counts[counts.any(1)]
    best = counts.argmax(1)
    if len(set(best.tolist())) < len(best) or len(labels) < ENOUGH * len(counts):
        return None
    share = float(counts.max(1).sum() / len(labels))
    return share if share >= CLEAR and share > float((predicted == labels).mean()) else None


def assumptions(info: EngineInfo, card: Card, preparation: Preparation) -> tuple[Assumption, ...]:
    """Return what an engine assumes of its network, and who says so: a flag, the checkpoint's card, or nobody."""

    def origin(field: str) -> str:
        if getattr(preparation, field) is not None:
            return "--" + field.replace("_", "-")
        return "card" if getattr(card, field) is not None else "default"

    names = [*info.classes[:SHOWN_NAMES], *(["..."] if len(info.classes) > SHOWN_NAMES else [])]
    return (
        Assumption("mean", ", ".join(map(str, info.mean)), origin("mean")),
        Assumption("std", ", ".join(map(str, info.std)), origin("std")),
        Assumption("channels", "RGB", "always"),
        Assumption("image size", str(info.input_size), origin("input_size")),
        Assumption("resize", str(info.resize or "largest square"), origin("resize")),
        Assumption("network", info.architecture, f"pool: {origin('max_pool')}"),
        Assumption("order of classes", ", ".join(names), origin("classes")),
    )

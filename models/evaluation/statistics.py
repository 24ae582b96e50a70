"""How good logits are, alone and paired with another variant's on the same images. Each method names its source."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from common.statistics import Interval, mcnemar, paired_difference, proportion
from models.cifar10 import Labels
from models.logits import Logits, sqnr

ECE_BINS = 15


@dataclass(frozen=True)
class Score:
    """How good the answers of a variant are on labelled images."""

    images: int
    top1: Interval
    """Share of images (0 to 1) whose top-1 class is their label."""
    per_class: dict[str, float | None]
    """Top-1 by class; None for a class without images."""
    negative_log_likelihood: float
    """Mean over the images, in nats, of -log of the label's probability."""
    expected_calibration_error: float
    """0 to 1."""


@dataclass(frozen=True)
class Paired:
    """How a variant's answers differ from the reference's on the same images."""

    reference: str
    only_reference_right: int
    only_variant_right: int
    mcnemar_p: float
    difference: Interval
    """The variant's top-1 minus the reference's, -1 to 1."""
    agreement: Interval
    """Share of images with the same top-1 class."""
    logit_sqnr_db: float | None
    """None if the logits are equal to the bit."""
    discordant: tuple[int, ...]
    """Indices of the images that exactly one of the two gets right."""


def score(logits: Logits, labels: Labels, classes: Sequence[str]) -> Score:
    """Judge `[N, C]` logits against `[N]` labels, N >= 1, for C classes with these names."""
    right = logits.argmax(1) == labels
    per_class = {
        name: float(right[labels == index].mean()) if (labels == index).any() else None
        for index, name in enumerate(classes)
    }
    log_probabilities = log_softmax(logits)
    likelihood = -float(log_probabilities[np.arange(len(labels)), labels].mean())
    calibration = expected_calibration_error(np.exp(log_probabilities.max(1)), right)
    return Score(len(labels), proportion(int(right.sum()), len(right)), per_class, likelihood, calibration)


def compare(logits: Logits, reference_logits: Logits, labels: Labels, reference: str) -> Paired:
    """Compare `[N, C]` logits with those of the variant `reference` on the same images."""
    ours, theirs = logits.argmax(1), reference_logits.argmax(1)
    right, reference_right = ours == labels, theirs == labels
    only_ours, only_theirs = int((right & ~reference_right).sum()), int((~right & reference_right).sum())
    return Paired(
        reference=reference,
        only_reference_right=only_theirs,
        only_variant_right=only_ours,
        mcnemar_p=mcnemar(only_ours, only_theirs),
        difference=paired_difference(only_ours, only_theirs, len(labels)),
        agreement=proportion(int((ours == theirs).sum()), len(labels)),
        logit_sqnr_db=sqnr(reference_logits, logits),
        discordant=tuple(np.flatnonzero(right != reference_right).tolist()),
    )


def log_softmax(logits: Logits) -> NDArray[np.float64]:
    """Return the `[N, C]` logarithms of the probabilities."""
    shifted = logits.astype(np.float64) - logits.max(1, keepdims=True)
    log_probabilities: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(1, keepdims=True))
    return log_probabilities


def expected_calibration_error(confidence: NDArray[np.float64], right: NDArray[np.bool_]) -> float:
    """Return the mean gap between confidence and accuracy, over bins of equal width (Guo et al., 2017, 15 bins)."""
    bins = np.minimum((confidence * ECE_BINS).astype(int), ECE_BINS - 1)
    gaps = np.bincount(bins, confidence - right, ECE_BINS)  # per bin: images times (confidence - accuracy)
    return float(np.abs(gaps).sum() / len(right))

"""The accuracy on labelled images: what is suspect, and what a wrong assumption about the bundled network looks like."""

import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from models import accuracy, cifar10, checkpoint, files, loading, selftest
from models.accuracy import Assumption, SampleAccuracy, doubt
from models.card import AS_IT_SAYS, Card, Preparation, read_card
from models.sample import Labelled, labelled_sample
from tests.models.conftest import Answers


@pytest.mark.parametrize(
    ("correct", "images", "classes", "claimed", "words"),
    [
        (43, 300, 10, None, "no better than chance, which is 10.0% with 10 classes"),
        (44, 300, 10, None, ""),
        (1, 300, 300, None, "no better than chance, which is 0.3% with 300 classes"),
        (56, 100, 2, None, "no better than chance, which is 50.0% with 2 classes"),
        (80, 100, 2, None, ""),
        (5, 5, 2, 0.95, ""),
        (272, 300, 10, 0.9518, "far below the 95.2% that the card claims"),
        (273, 300, 10, 0.9518, ""),
        (9700, 10000, 10, 0.98, ""),
        (9400, 10000, 10, 0.98, "far below the 98.0% that the card claims"),
        (42, 300, 10, 0.9518, "no better than chance, which is 10.0% with 10 classes"),
        (126, 300, 10, None, ""),
        (300, 300, 10, 1.0, ""),
    ],
)
def test_an_accuracy_is_judged(correct: int, images: int, classes: int, claimed: float | None, words: str) -> None:
    """Chance is judged by the binomial test at 0.01, a claim at 0.001 and from 3 points on; 5 images tell nothing."""
    assert doubt(correct, images, classes, claimed) == words


def judged(predicted: np.ndarray, labels: np.ndarray, classes: int, claimed: float | None = None) -> SampleAccuracy:
    """Return the judgement of an engine that predicts these classes."""
    assumed = (Assumption("std", "1", "default"), Assumption("channels", "RGB", "always"))
    return accuracy.judged(np.eye(classes, dtype=np.float32)[predicted], labels, claimed, "mine.images.npz", assumed)


def test_a_warning_names_what_is_assumed() -> None:
    """The warning has the accuracy, the file, the question and each assumption with its origin."""
    labels = np.arange(100) % 4
    found = judged(np.zeros(100, np.int64), labels, 4, 0.9)
    assert (found.correct, found.images, found.accuracy, found.is_suspect) == (25, 100, 0.25, True)
    assert found.warning == (
        "top-1 accuracy is 25.0% on the 100 labelled images of mine.images.npz: no better than chance, which is 25.0% "
        "with 4 classes. Is the normalisation right? Assumed: std 1 (default); channels RGB (always)."
    )


@pytest.mark.parametrize(("shift", "proposes"), [(1, True), (0, False)])
def test_another_order_of_the_classes_is_proposed(shift: int, proposes: bool) -> None:
    """If each label has a prediction of its own, the warning gives the accuracy in that order; noise gets no proposal."""
    labels = np.arange(200) % 10
    predicted = (labels + shift) % 10 if shift else np.random.default_rng(1).integers(0, 10, 200)
    assert ("With the classes in another order it would be 100.0%" in judged(predicted, labels, 10).warning) == proposes

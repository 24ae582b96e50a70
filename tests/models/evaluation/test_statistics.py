"""Each statistic against values computed by hand."""

import numpy as np
import pytest

from models.cifar10 import CLASSES
from models.evaluation import statistics
from models.logits import sqnr

CERTAIN = 50.0


def logits_for(classes: list[int], size: float = CERTAIN) -> np.ndarray:
    """Return logits that choose these classes; with a large `size` nearly with certainty."""
    logits = np.zeros((len(classes), 10), np.float32)
    logits[np.arange(len(classes)), classes] = size
    return logits


def test_top1_counts_the_right_ones_by_class() -> None:
    """Top-1 is the share of right answers, in total and by class; a class without images has none."""
    score = statistics.score(logits_for([0, 0, 3, 4]), np.array([0, 0, 3, 3]), CLASSES)
    assert score.top1.estimate == 0.75
    assert (score.per_class["airplane"], score.per_class["cat"], score.per_class["dog"]) == (1.0, 0.5, None)


def test_equal_logits_cost_the_logarithm_of_ten() -> None:
    """Equal logits have the negative log-likelihood ln 10."""
    score = statistics.score(np.zeros((5, 10), np.float32), np.arange(5), CLASSES)
    assert score.negative_log_likelihood == pytest.approx(np.log(10))


def test_huge_logits_do_not_overflow() -> None:
    """With huge logits the likelihood of a right answer is 1 and that of a wrong one is finite."""
    assert statistics.score(logits_for([1], 1e4), np.array([1]), CLASSES).negative_log_likelihood == 0
    assert statistics.score(logits_for([1], 1e4), np.array([2]), CLASSES).negative_log_likelihood == pytest.approx(1e4)


def test_calibration_error_is_the_gap_of_confidence() -> None:
    """Certain answers that are right half the time have an error of 0.5; certain answers that are right have none."""
    labels = np.array([1, 1, 2, 2])
    assert statistics.score(logits_for([1, 1, 1, 1]), labels, CLASSES).expected_calibration_error == pytest.approx(0.5)
    assert statistics.score(logits_for([1, 1, 2, 2]), labels, CLASSES).expected_calibration_error == pytest.approx(0)


def test_calibration_error_does_not_cancel_between_bins() -> None:
    """Gaps of opposite sign in two bins add up: (0.35 + 0.45) / 2."""
    confidence, right = np.array([0.35, 0.55]), np.array([False, True])
    assert statistics.expected_calibration_error(confidence, right) == pytest.approx(0.4)


def test_calibrated_answers_have_a_small_error() -> None:
    """Of 100,000 answers that are right as often as they say, the error is only sampling noise."""
    random = np.random.default_rng(0)
    confidence = random.uniform(0.1, 1, 100_000)
    right = random.uniform(size=100_000) < confidence
    assert statistics.expected_calibration_error(confidence, right) < 0.01


def test_sqnr_is_the_ratio_of_powers() -> None:
    """Noise of a tenth of the amplitude is 20 dB; without noise there is no ratio."""
    exact = np.ones((2, 10), np.float32)
    assert sqnr(exact, exact * 1.1) == pytest.approx(20, abs=1e-4)
    assert sqnr(exact, exact) is None


def test_a_pair_is_held_against_each_other() -> None:
    """Of four images one is right for the reference only and one for the variant only; equal wrong classes agree."""
    labels = np.array([0, 1, 2, 3])
    found = statistics.compare(logits_for([0, 5, 2, 9]), logits_for([0, 1, 7, 9]), labels, "fp32")
    assert (found.only_reference_right, found.only_variant_right, found.discordant) == (1, 1, (1, 2))
    assert (found.agreement.estimate, found.difference.estimate, found.mcnemar_p) == (0.5, 0, 1)

"""Each statistic against values worked out elsewhere, and its interval against simulation."""

import numpy as np
import pytest

from models.evaluation import statistics

CERTAIN = 50.0


def logits_for(classes: list[int], size: float = CERTAIN) -> np.ndarray:
    """Logits that choose these classes, with nearly all probability where `size` is large."""
    logits = np.zeros((len(classes), 10), np.float32)
    logits[np.arange(len(classes)), classes] = size
    return logits


def test_top1_counts_the_right_ones_by_class() -> None:
    """Three of four right; a class without images has no accuracy."""
    score = statistics.score(logits_for([0, 0, 3, 4]), np.array([0, 0, 3, 3]))
    assert score.top1.estimate == 0.75
    assert (score.per_class["airplane"], score.per_class["cat"], score.per_class["dog"]) == (1.0, 0.5, None)


def test_equal_logits_cost_the_logarithm_of_ten() -> None:
    """Without any knowledge the negative log-likelihood of ten classes is ln 10."""
    score = statistics.score(np.zeros((5, 10), np.float32), np.arange(5))
    assert score.negative_log_likelihood == pytest.approx(np.log(10))


def test_huge_logits_do_not_overflow() -> None:
    """The likelihood of a certain, right answer is 1, of a certain, wrong one finite."""
    assert statistics.score(logits_for([1], 1e4), np.array([1])).negative_log_likelihood == 0
    assert statistics.score(logits_for([1], 1e4), np.array([2])).negative_log_likelihood == pytest.approx(1e4)


def test_calibration_error_is_the_gap_of_confidence() -> None:
    """Always certain and right half the time: off by a half. Certain and always right: off by nothing."""
    labels = np.array([1, 1, 2, 2])
    assert statistics.score(logits_for([1, 1, 1, 1]), labels).expected_calibration_error == pytest.approx(0.5)
    assert statistics.score(logits_for([1, 1, 2, 2]), labels).expected_calibration_error == pytest.approx(0)


def test_calibration_error_does_not_cancel_between_bins() -> None:
    """Too sure in one bin and too modest in another add up: (0.35 + 0.45) / 2."""
    confidence, right = np.array([0.35, 0.55]), np.array([False, True])
    assert statistics.expected_calibration_error(confidence, right) == pytest.approx(0.4)


def test_calibrated_answers_have_a_small_error() -> None:
    """Answers that are right as often as they say: only sampling noise is left of 100,000."""
    random = np.random.default_rng(0)
    confidence = random.uniform(0.1, 1, 100_000)
    right = random.uniform(size=100_000) < confidence
    assert statistics.expected_calibration_error(confidence, right) < 0.01


def test_sqnr_is_the_ratio_of_powers() -> None:
    """A tenth of the amplitude as noise is 20 dB; no noise has no ratio."""
    exact = np.ones((2, 10), np.float32)
    assert statistics.sqnr(exact, exact * 1.1) == pytest.approx(20, abs=1e-4)
    assert statistics.sqnr(exact, exact) is None


def test_a_pair_is_held_against_each_other() -> None:
    """Of four images, one only the reference gets right, one only the variant; both wrong alike is agreement."""
    labels = np.array([0, 1, 2, 3])
    found = statistics.compare(logits_for([0, 5, 2, 9]), logits_for([0, 1, 7, 9]), labels, "fp32")
    assert (found.only_reference_right, found.only_variant_right, found.discordant) == (1, 1, (1, 2))
    assert (found.agreement.estimate, found.difference.estimate, found.mcnemar_p) == (0.5, 0, 1)

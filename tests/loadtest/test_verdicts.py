"""What is said about two arms."""

import numpy as np
import pytest

from common.statistics import Interval
from loadtest.analysis.verdicts import accuracy_verdict, baselines, compare, verdict
from loadtest.plan import Arm


@pytest.mark.parametrize(
    ("metric", "ratio", "words"),
    [
        ("images_per_second", Interval(2.9, 2.7, 3.1), "answers 2.90 x [2.70, 3.10] as many images per second"),
        ("images_per_second", Interval(0.5, 0.4, 0.6), "answers 0.50 x [0.40, 0.60] as many images per second"),
        ("p50", Interval(0.5, 0.4, 0.8), "2.00 x [1.25, 2.50] faster at p50"),
        ("p95", Interval(1.5, 1.2, 1.9), "1.50 x [1.20, 1.90] slower at p95"),
        ("p99", Interval(0.9, 0.7, 1.1), "p99: no difference shown (0.90 x [0.70, 1.10])"),
        ("p99", Interval(0.1, None, None), "p99: too few rounds to say (0.10 x)"),
        ("p99", None, "p99: too few requests to say"),
    ],
)
def test_a_ratio_in_words(metric: str, ratio: Interval | None, words: str) -> None:
    """A difference is stated with its interval; what cannot be separated is not ranked."""
    assert verdict(metric, ratio) == words


def held(estimate: float, low: float, high: float, p: float) -> dict[str, object]:
    return {"difference": {"estimate": estimate, "low": low, "high": high}, "images": 10000, "mcnemar_p": p}


def test_accuracy_is_compared_in_points_on_the_same_images() -> None:
    """The sentence of the issue."""
    words = accuracy_verdict(held(-0.0005, -0.0021, 0.0011, 0.5))
    assert words == "accuracy: no difference shown (-0.05 points [-0.21, +0.11], paired on 10,000 images)"


def test_a_loss_of_accuracy_is_said() -> None:
    """When both the interval and the exact test see it."""
    assert accuracy_verdict(held(-0.02, -0.03, -0.01, 0.001)).startswith("less accurate (-2.00 points")


def cell(arm: str, scale: float) -> dict[str, object]:
    rng = np.random.default_rng(3)
    rounds = [
        {"block": b, "seconds": 1.0, "finished": round(100 / scale), "latencies": list(scale * rng.gamma(4, 1, 80))}
        for b in range(8)
    ]
    return {"arm": arm, "workload": "8 users", "rounds": rounds}


def test_cells_are_compared_over_the_rounds_that_both_played() -> None:
    """A run that was stopped between two arms still pairs."""
    arm, baseline = cell("int8", 0.5), cell("fp32", 1.0)
    arm["rounds"] = arm["rounds"][:6]  # type: ignore[index]
    comparison = compare(arm, baseline, seed=0)
    assert comparison["rounds"] == 6
    assert comparison["ratios"]["p50"]["estimate"] == pytest.approx(0.5)
    assert comparison["ratios"]["images_per_second"]["estimate"] == pytest.approx(2.0)


def arm(name: str, device: str = "cpu", reference: str | None = None, url: str = "http://a") -> Arm:
    return Arm(f"{name} @ {url}", url, name, {"device": device, "reference": reference})


def test_an_arm_is_held_against_the_one_its_card_names() -> None:
    """INT8 on the CPU against FP32 on the CPU, although FP32 on a GPU is there."""
    arms = [arm("fp32", "cuda:0"), arm("fp32-cpu", reference="fp32"), arm("int8", reference="fp32-cpu")]
    assert baselines(arms)["int8 @ http://a"] == "fp32-cpu @ http://a"


def test_without_the_named_one_it_is_held_against_fp32() -> None:
    """On a machine without a GPU fp32 is the CPU's."""
    arms = [arm("int8", reference="fp32-cpu"), arm("fp32")]
    assert baselines(arms) == {"int8 @ http://a": "fp32 @ http://a"}


def test_of_two_services_the_second_is_held_against_the_first() -> None:
    """Variant by variant."""
    arms = [arm("fp32"), arm("int8"), arm("fp32", url="http://b"), arm("int8", url="http://b")]
    held_against = baselines(arms)
    assert held_against["int8 @ http://b"] == "int8 @ http://a"
    assert held_against["fp32 @ http://b"] == "fp32 @ http://a"

"""The comparison of two arms in words."""

from dataclasses import replace

import numpy as np
import pytest

from common.statistics import Interval
from loadtest.analysis.verdicts import accuracy_verdict, baselines
from loadtest.analysis.words import ratio_words
from loadtest.plan import Arm
from loadtest.records import Played
from loadtest.report.document import Against
from tests.loadtest import builders
from tests.loadtest.builders import FP32, INT8, report, request


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
    """A difference comes with its interval; an interval that contains 1 shows none."""
    assert ratio_words(metric, ratio) == words


def held(estimate: float, low: float, high: float, p: float) -> Against:
    return Against("fp32", 10000, None, Interval(estimate, low, high), 0, 0, p)


def test_accuracy_is_compared_in_points_on_the_same_images() -> None:
    """The words hold the difference, its interval and the number of images."""
    words = accuracy_verdict(held(-0.0005, -0.0021, 0.0011, 0.5))
    assert words == "accuracy: no difference shown (-0.05 points [-0.21, +0.11], paired on 10,000 images)"


def test_a_loss_of_accuracy_needs_the_interval_and_the_exact_test() -> None:
    """The words say `less accurate` only if McNemar's test, too, finds the difference."""
    assert accuracy_verdict(held(-0.02, -0.03, -0.01, 0.001)).startswith("less accurate (-2.00 points")
    assert accuracy_verdict(held(-0.02, -0.03, -0.01, 0.2)).startswith("accuracy: no difference shown")


def rounds(arm: Arm, scale: float, count: int) -> list[Played]:
    """Return rounds of requests whose latencies are the same random ones for every arm, times `scale`."""
    rng = np.random.default_rng(3)
    latencies = scale * rng.gamma(4, 0.001, (count, 80))
    sent = round(80 / scale)
    return [
        builders.played(arm, [request(0.0, float(row[i % 80]), i) for i in range(sent)], block=block)
        for block, row in enumerate(latencies)
    ]


def test_cells_are_compared_over_the_rounds_that_both_played() -> None:
    """In a run that was stopped between two arms, the rounds of the last block have no partner and do not count."""
    (comparison,) = report([*rounds(FP32, 1.0, 8), *rounds(INT8, 0.5, 6)]).comparisons
    assert (comparison.arm, comparison.baseline, comparison.rounds) == ("int8", "fp32", 6)
    assert comparison.ratios.p50 is not None
    assert comparison.ratios.images_per_second is not None
    assert comparison.ratios.images_per_second.estimate == pytest.approx(2.0)


def arm(variant: str, device: str = "cpu", reference: str | None = None, url: str = "http://a") -> Arm:
    return builders.arm(variant, url, f"{variant} @ {url}", device=device, reference=reference)


def test_an_arm_is_held_against_the_reference_that_the_service_names() -> None:
    """INT8 on the CPU against FP32 on the CPU, although FP32 on a GPU comes first."""
    arms = [arm("fp32", "cuda:0"), arm("fp32-cpu"), arm("int8", reference="fp32-cpu")]
    assert baselines(arms)["int8 @ http://a"] == "fp32-cpu @ http://a"


def test_without_the_named_reference_it_is_held_against_a_variant_that_has_none() -> None:
    """No name of a variant is special: the first one that the service holds against nothing is the reference."""
    arms = [arm("fast", reference="exact-cpu"), arm("exact"), arm("other")]
    assert baselines(arms) == {"fast @ http://a": "exact @ http://a", "other @ http://a": "exact @ http://a"}


def test_without_any_reference_it_is_held_against_the_first_arm() -> None:
    """The user left the references out with --variants."""
    arms = [arm("fp16", reference="fp32"), arm("int8", reference="fp32-cpu")]
    assert baselines(arms) == {"int8 @ http://a": "fp16 @ http://a"}


def test_of_two_services_the_second_is_held_against_the_first() -> None:
    """Each variant of the second service is compared with the same variant of the first one."""
    arms = [arm("fp32"), arm("int8"), arm("fp32", url="http://b"), arm("int8", url="http://b")]
    held_against = baselines(arms)
    assert held_against["int8 @ http://b"] == "int8 @ http://a"
    assert held_against["fp32 @ http://b"] == "fp32 @ http://a"


def test_models_of_other_servers_are_held_against_the_first_service() -> None:
    """By name, else by their place: servers may name their models differently. All services have the same baseline."""
    ours = [arm("fp32"), arm("int8", reference="fp32")]
    others = [
        replace(arm(name, url=url, reference="net" if name != "net" else None), protocol="v2")
        for url in ("http://b", "http://c")
        for name in ("net", "net-8bit", "int8", "more")
    ]
    assert {name: other for name, other in baselines([*ours, *others]).items() if "http://a" not in name} == {
        f"{name} @ {url}": f"{other} @ http://a"
        for url in ("http://b", "http://c")
        for name, other in (("net", "fp32"), ("net-8bit", "int8"), ("int8", "int8"), ("more", "fp32"))
    }

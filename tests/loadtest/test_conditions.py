"""The conditions of `--fail-on`, on the paired arms of one report."""

import argparse

import numpy as np
import pytest

from common.statistics import Interval
from loadtest.analysis.differences import Difference, missing, paired
from loadtest.client.server import Excluded
from loadtest.conditions import Condition, condition, judge
from loadtest.measured import Subjects
from loadtest.plan import Arm
from loadtest.records import Played
from loadtest.report.build import build
from loadtest.report.document import Report
from loadtest.targets import Target
from tests.loadtest.builders import FP32, INT8, arm, measured, played, report, request, settings


def ratio(low: float | None, high: float | None) -> list[Difference]:
    """Return one comparison at p99."""
    return [Difference("int8", "8 users", "p99", Interval(1.05, low, high))]


@pytest.mark.parametrize(
    ("low", "high", "codes"),
    [
        (0.98, 1.09, {"p99>1.10": 0, "not p99<1.10": 0}),
        (0.98, 1.12, {"p99>1.10": 0, "not p99<1.10": 1}),
        (1.11, 1.20, {"p99>1.10": 1, "not p99<1.10": 1}),
        (None, None, {"p99>1.10": 3, "not p99<1.10": 3}),
    ],
)
def test_a_loss_must_be_shown_or_excluded(low: float | None, high: float | None, codes: dict[str, int]) -> None:
    """`p99>1.10` fails where a loss is shown, `not p99<1.10` where it is not excluded. Both need an interval."""
    assert {text: judge([condition(text)], ratio(low, high)).code for text in codes} == codes


def test_a_failure_names_condition_place_and_interval() -> None:
    """The line says what is to be shown, where, and the numbers."""
    judgement = judge([condition("not p99<1.1")], ratio(0.98, 1.12))
    assert judgement.failed == ("FAILED not p99<1.1: int8, 8 users: 1.05 x [0.98, 1.12]",)


def test_nothing_to_compare_does_not_pass() -> None:
    """A single variant has no baseline."""
    assert judge([condition("p50>1.1")], []).undecided == ("UNDECIDED p50>1.1: there is nothing to compare",)
    assert judge([], []).code == 0


@pytest.mark.parametrize("text", ["p98>1", "p99=1", "p99>", ">1", "p99>x", "notp99>1", "not not p99>1", ""])
def test_a_condition_that_makes_no_sense_is_refused(text: str) -> None:
    """The error shows the form and lists the metrics."""
    with pytest.raises(argparse.ArgumentTypeError, match=r"METRIC>NUMBER.*images_per_second, p50, p95, p99, accuracy"):
        condition(text)


def test_a_condition_may_hold_spaces() -> None:
    """Spaces around each part are allowed."""
    assert condition(" not  p99 < 1.10 ") == Condition("p99", "<", 1.1, is_negated=True)


def rounds(of: Arm, latency: float) -> list[Played]:
    """Return twelve rounds of a hundred requests that take about so long, on a machine whose pace wanders."""
    rng = np.random.default_rng(0)
    paces = np.exp(np.cumsum(rng.normal(0, 0.05, 12)))
    return [
        played(of, [request(0.1, latency * pace * rng.lognormal(0, 0.1), i) for i in range(100)], block=block)
        for block, pace in enumerate(paces)
    ]


def test_arms_of_one_run_are_judged_against_their_reference() -> None:
    """int8 takes 1.3 times as long, which pairing shows although the machine's pace wanders."""
    found = paired(report([*rounds(FP32, 0.010), *rounds(INT8, 0.013)]))
    assert {d.arm for d in found} == {"int8"}
    assert judge([condition("p50>1.2")], found).code == 1
    assert judge([condition("not p50<1.4")], found).code == 0


def two_services(*arms: Arm) -> Report:
    """Return the report of a run of the services `old` and `new`."""
    options = settings(urls=(Target("old", "http://old"), Target("new", "http://new")), variants=("fp32", "int8"))
    run = measured([p for each in arms for p in rounds(each, 0.01)], options)
    ((_, said),) = run.subjects.services
    services = tuple((target, said) for target in options.urls)
    left_out = (Excluded("int8 @ new", "starting"),) if len(arms) == 3 else ()
    return build(measured(run.played, options, subjects=Subjects(services, arms, left_out)), options, ())


ARMS = [
    arm(variant, f"http://{label}", f"{variant} @ {label}", reference="fp32" if variant == "int8" else None)
    for label in ("old", "new")
    for variant in ("fp32", "int8")
]


def test_several_services_are_judged_variant_by_variant() -> None:
    """int8 of the old service against its own fp32 is no question of the two builds."""
    both = two_services(*ARMS)
    assert {d.arm for d in paired(both)} == {"fp32 @ new", "int8 @ new"}
    assert missing(both) == []


def test_a_variant_that_the_new_service_lacks_does_not_pass() -> None:
    """It is named, with the reason, and the code is 3."""
    lacking = two_services(*ARMS[:3])
    assert missing(lacking) == ["MISSING: int8 @ new (starting)", "MISSING: int8 @ new"]
    assert judge([condition("p50>1.5")], paired(lacking), missing(lacking)).code == 3

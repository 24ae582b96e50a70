"""The advice for each workload, in every situation that a run can end in."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import pytest

from common.statistics import Interval
from loadtest.analysis.decisions import decisions
from loadtest.plan import Workload
from loadtest.report.cells import EnergyUse
from loadtest.report.document import Against, Comparison, Ratios, Report
from loadtest.slo.level import Found, Level, LevelRatio
from tests.loadtest.builders import FP32, INT8, USERS, arm, played, report, request, settings

BF16 = arm("bf16-cpu", device="cpu", reference="fp32")
OPEN = Workload(rate=100)
SAME, FASTER, SLOWER = Interval(1.0, 0.98, 1.02), Interval(2.77, 2.71, 2.82), Interval(0.8, 0.78, 0.82)
LOW, HIGH = Interval(0.5, 0.48, 0.52), Interval(1.5, 1.45, 1.55)
NO_INTERVAL = Interval(2.77, None, None)
LESS = Against("fp32", 300, None, Interval(-0.012, -0.016, -0.008), 0, 8, 0.008)
MORE = Against("fp32", 300, None, Interval(0.012, 0.008, 0.016), 8, 0, 0.008)
UNSURE = Against("fp32", 300, None, Interval(-0.012, -0.016, -0.008), 0, 4, 0.125)
HELD = Against("fp32", 300, None, Interval(0.0, -0.009, 0.009), 0, 0, 1.0)


@dataclass(frozen=True)
class Case:
    """What one arm showed against fp32: ratios of images and of p99, accuracy, and flaws of its cell or fp32's."""

    images: Interval | None = FASTER
    p99: Interval | None = LOW
    accuracy: Against | None = HELD
    cell: dict[str, object] | None = None
    baseline: dict[str, object] | None = None


def case(of: Case, workload: Workload = USERS, bf16: Case | None = None) -> Report:
    """Return a report of fp32 and int8, and of `bf16` if it is given, whose numbers are those of the cases."""
    arms = {"int8": of} | ({"bf16-cpu": bf16} if bf16 else {})
    sent = [request(0.1, 0.0125, i) for i in range(500)]
    some = [played(each, sent, workload) for each in (FP32, *(a for a in (INT8, BF16) if a.name in arms))]
    made = report(some, settings(workloads=(workload,), price_per_hour=0.36))
    changes = {name: c.cell or {} for name, c in arms.items()} | {"fp32": of.baseline or {}}
    cells = [replace(cell, **changes[cell.arm]) for cell in made.cells]  # type: ignore[arg-type]
    compared = [
        Comparison(name, "fp32", workload.name, 20, Ratios(c.images, None, None, c.p99)) for name, c in arms.items()
    ]
    answers = [replace(row, against=arms[row.arm].accuracy if row.arm in arms else None) for row in made.accuracy]
    return replace(made, cells=tuple(cells), comparisons=tuple(compared), accuracy=tuple(answers))


def lines(made: Report) -> Sequence[str]:
    """Return the decisions without the prices, which have a test of their own."""
    unpriced = replace(made, settings=replace(made.settings, price_per_hour=None))
    return [decision.sentence for decision in decisions(unpriced)]


CLOSED = {
    "faster": (
        Case(),
        "8 users: int8, 2.77 x [2.71, 2.82] the images of fp32, no accuracy difference shown on 300 images.",
    ),
    "equal": (Case(SAME, SAME), "8 users: fp32, no gain of int8 shown (1.00 x [0.98, 1.02] the images)."),
    "slower": (Case(SLOWER, HIGH), "8 users: fp32, int8 answers only 0.80 x [0.78, 0.82] the images."),
    "only the tail is better": (
        Case(SAME, LOW),
        (
            "8 users: int8, 2.00 x [1.92, 2.08] as fast at p99 as fp32 (12.5 against 12.5 ms), "
            "no accuracy difference shown on 300 images."
        ),
    ),
    "images better, tail worse": (
        Case(FASTER, HIGH),
        (
            "8 users: no clear choice: int8 answers 2.77 x [2.71, 2.82] the images, "
            "but is 1.50 x [1.45, 1.55] slower at p99."
        ),
    ),
    "tail better, images worse": (
        Case(SLOWER, LOW),
        (
            "8 users: no clear choice: int8 is 2.00 x [1.92, 2.08] as fast at p99, "
            "but answers only 0.80 x [0.78, 0.82] the images."
        ),
    ),
    "faster, less accurate": (
        Case(accuracy=LESS),
        (
            "8 users: no clear choice: int8 answers 2.77 x [2.71, 2.82] the images, "
            "but is less accurate (-1.20 points [-1.60, -0.80])."
        ),
    ),
    "equal, less accurate": (
        Case(SAME, SAME, LESS),
        (
            "8 users: fp32, no gain of int8 shown (1.00 x [0.98, 1.02] the images), "
            "and it is less accurate (-1.20 points [-1.60, -0.80])."
        ),
    ),
    "equal, more accurate": (
        Case(SAME, SAME, MORE),
        "8 users: int8, 1.00 x [0.98, 1.02] the images of fp32, more accurate (+1.20 points [+0.80, +1.60]).",
    ),
    "the exact test shows no difference": (
        Case(accuracy=UNSURE),
        "8 users: int8, 2.77 x [2.71, 2.82] the images of fp32, no accuracy difference shown on 300 images.",
    ),
    "accuracy unknown": (
        Case(accuracy=None),
        "8 users: int8, 2.77 x [2.71, 2.82] the images of fp32, accuracy not measured.",
    ),
    "too few rounds": (
        Case(NO_INTERVAL, None),
        "8 users: no decision, too few rounds or requests (int8 answers 2.77 x the images).",
    ),
    "too few requests": (
        Case(None, None),
        "8 users: no decision, too few rounds or requests (int8 has too few requests to say).",
    ),
    "the arm is INVALID": (
        Case(cell={"invalid": ("drift",)}),
        "8 users: no decision, int8 is INVALID here (drift).",
    ),
    "the baseline is INVALID": (
        Case(baseline={"invalid": ("drift",)}),
        "8 users: no decision, fp32 is INVALID here (drift).",
    ),
}


@pytest.mark.parametrize(("of", "line"), CLOSED.values(), ids=list(CLOSED))
def test_two_arms_under_a_closed_workload(of: Case, line: str) -> None:
    """The line names the arm to run, or says why it names none."""
    assert lines(case(of)) == [line]


SATURATED = {"saturated": True, "requests_per_second": 61.3}
RATE = {
    "faster": (
        Case(SAME, LOW),
        (
            "100 requests/s: int8, 2.00 x [1.92, 2.08] as fast at p99 as fp32 (12.5 against 12.5 ms), "
            "no accuracy difference shown on 300 images."
        ),
    ),
    "equal": (Case(SAME, SAME), "100 requests/s: fp32, no gain of int8 shown (1.00 x [0.98, 1.02] as fast at p99)."),
    "slower": (Case(SAME, HIGH), "100 requests/s: fp32, int8 is 1.50 x [1.45, 1.55] slower at p99."),
    "the baseline cannot hold it": (
        Case(baseline=SATURATED),
        (
            "100 requests/s: int8, fp32 cannot hold this rate and answers 61.3 requests/s, "
            "no accuracy difference shown on 300 images."
        ),
    ),
    "the baseline cannot hold it, and the arm is less accurate": (
        Case(baseline=SATURATED, accuracy=LESS),
        (
            "100 requests/s: no clear choice: fp32 cannot hold this rate and answers 61.3 requests/s, "
            "but int8 is less accurate (-1.20 points [-1.60, -0.80])."
        ),
    ),
    "the arm cannot hold it": (
        Case(SLOWER, cell=SATURATED),
        "100 requests/s: fp32, int8 cannot hold this rate and answers 61.3 requests/s.",
    ),
    "neither holds it": (
        Case(cell=SATURATED, baseline=SATURATED),
        "100 requests/s: int8, 2.77 x [2.71, 2.82] the images of fp32, no accuracy difference shown on 300 images.",
    ),
}


@pytest.mark.parametrize(("of", "line"), RATE.values(), ids=list(RATE))
def test_two_arms_under_a_rate(of: Case, line: str) -> None:
    """Both answer the same rate, so latencies decide, unless an arm cannot hold it."""
    assert lines(case(of, OPEN)) == [line]


def several(int8: Case, bf16: Case, int8_over_bf16: float) -> Report:
    """Return a report of three arms whose images per second have this ratio between int8 and bf16-cpu."""
    made = case(int8, bf16=bf16)
    factors = {"fp32": 1.0, "bf16-cpu": 1.0, "int8": int8_over_bf16}
    cells = [
        replace(c, rounds=tuple(replace(c.rounds[0], block=b, answered=factors[c.arm] * (500 + b)) for b in range(8)))
        for c in made.cells
    ]
    return replace(made, cells=tuple(cells))


FAST = Interval(1.94, 1.9, 1.98)


def test_the_fastest_of_several_arms_is_named_first() -> None:
    """The other arm that is better than the baseline follows with its number."""
    (line,) = lines(several(Case(), Case(FAST), 1.4))
    assert line.startswith("8 users: int8, 2.77 x [2.71, 2.82] the images of fp32, no accuracy difference shown")
    assert line.endswith("; bf16-cpu answers 1.94 x [1.90, 1.98] the images.")


def test_arms_that_are_not_shown_to_differ_are_both_named() -> None:
    """Rounds that are the same for both separate nothing."""
    (line,) = lines(several(Case(), Case(FAST), 1.0))
    assert line.startswith("8 users: int8 or bf16-cpu, 2.77 x")
    assert line.endswith("; int8 and bf16-cpu are not shown to differ.")


def test_a_faster_arm_that_costs_accuracy_is_mentioned() -> None:
    """bf16-cpu loses nothing, so it is the choice; who can spare the points finds int8."""
    (line,) = lines(several(Case(accuracy=LESS), Case(FAST), 1.4))
    assert line.startswith("8 users: bf16-cpu, 1.94 x [1.90, 1.98] the images of fp32, ")
    assert "; int8 answers 2.77 x [2.71, 2.82] the images, but is less accurate (-1.20 points" in line


def test_an_invalid_arm_is_set_aside() -> None:
    """The valid ones are judged all the same."""
    (line,) = lines(several(Case(cell={"invalid": ("drift",)}), Case(FAST), 1.4))
    assert line.startswith("8 users: bf16-cpu, 1.94 x")
    assert line.endswith("; int8 is INVALID here and not considered.")


def test_an_invalid_run_has_one_line() -> None:
    """It names the reason."""
    made = replace(case(Case()), invalid=("fp32 was replaced",))
    assert lines(made) == ["the whole run: no decision, it is INVALID (fp32 was replaced)."]


def test_price_and_energy_stand_in_the_line() -> None:
    """Of a closed workload; the machine that serves a rate costs the same whichever arm answers."""
    use = EnergyUse(Interval(250.0, None, None), 100.0, 50.0)
    cell = {"images_per_second": 250.0, "energy": use}
    baseline = {"images_per_second": 100.0, "energy": replace(use, joules=Interval(500.0, None, None))}
    closed, at_a_rate = (
        decisions(case(Case(cell=cell, baseline=baseline), workload))[0].words for workload in (USERS, OPEN)
    )
    assert closed.endswith("; 0.40 against 1.0 a million images; 250 against 500 J per 1,000 images")
    assert at_a_rate.endswith("shown on 300 images; 250 against 500 J per 1,000 images")


LEVELS = {
    "more": (
        Interval(2.6, 2.4, 2.8),
        HELD,
        (
            "p99 <= 50 ms: int8, 2.60 x [2.40, 2.80] the requests/s of fp32 (364 against 140), "
            "no accuracy difference shown on 300 images."
        ),
    ),
    "more, less accurate": (
        Interval(2.6, 2.4, 2.8),
        LESS,
        (
            "p99 <= 50 ms: no clear choice: int8 holds 2.60 x [2.40, 2.80] the requests/s of fp32 (364 against 140), "
            "but is less accurate (-1.20 points [-1.60, -0.80])."
        ),
    ),
    "no difference": (
        Interval(1.1, 0.9, 1.3),
        HELD,
        "p99 <= 50 ms: fp32, no gain of int8 shown, 1.10 x [0.90, 1.30] the requests/s of fp32 (364 against 140).",
    ),
    "less, more accurate": (
        Interval(0.5, 0.4, 0.6),
        MORE,
        "p99 <= 50 ms: fp32, no gain of int8 shown, 0.50 x [0.40, 0.60] the requests/s of fp32 (364 against 140).",
    ),
    "no interval": (
        Interval(2.6, None, None),
        HELD,
        "p99 <= 50 ms: fp32, no gain of int8 shown, 2.60 x the requests/s of fp32 (364 against 140).",
    ),
}


@pytest.mark.parametrize(("ratio", "accuracy", "line"), LEVELS.values(), ids=list(LEVELS))
def test_a_service_level_has_the_first_line(ratio: Interval, accuracy: Against, line: str) -> None:
    """The arm that holds the level under the higher load is the choice, if the interval shows it."""
    level = ("p99 <= 50 ms", "requests/s")
    levels = tuple(
        Level(name, *level, 900.0, Found(load, None, "", ())) for name, load in (("fp32", 140.0), ("int8", 364.0))
    )
    made = replace(
        case(Case(accuracy=accuracy)), levels=levels, level_ratios=(LevelRatio("int8", "fp32", *level, ratio),)
    )
    assert lines(made)[0] == line


def test_two_baselines_have_a_line_each() -> None:
    """int8 is compared with fp32-cpu, and fp16 with fp32: the lines name the baselines."""
    arms = (arm("fp32", device="cuda:0"), arm("fp16", device="cuda:0", reference="fp32"))
    arms += (arm("fp32-cpu", device="cpu"), arm("int8", device="cpu", reference="fp32-cpu"))
    made = report([played(each, [request(0.1, 0.01, i) for i in range(20)]) for each in arms])
    subjects = [decision.subject for decision in made.decisions]
    assert "8 users, against fp32" in subjects
    assert "8 users, against fp32-cpu" in subjects

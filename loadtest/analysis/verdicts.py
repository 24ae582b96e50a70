"""What the data say about two arms, in words; what they cannot separate is not ranked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from common.statistics import Interval
from loadtest.analysis.statistics import mean_ratio, quantile_ratio
from loadtest.analysis.summary import QUANTILES
from loadtest.plan import Arm
from loadtest.slo import words

METRICS = ("images_per_second", *QUANTILES)
SIGNIFICANT = 0.05


def baselines(arms: Sequence[Arm]) -> dict[str, str]:
    """Which arm each arm is held against: the one its card names, else fp32, else the first one; itself never.

    Between several services the first one's arm of the same variant comes first: two builds are what is compared.
    """
    chosen = {}
    for arm in arms:
        same = [other for other in arms if _service(other) == _service(arm)]
        twins = [other for other in arms if other.variant == arm.variant and other not in same]
        named = [o for name in (arm.card.get("reference"), "fp32") for o in same if o.variant == name]
        candidates = [*(twins[:1] if _service(arm) != _service(arms[0]) else []), *named, arms[0]]
        if candidates[0] != arm:
            chosen[arm.name] = candidates[0].name
    return chosen


def _service(arm: Arm) -> tuple[str, str]:
    return arm.url, arm.service


def compare(arm: Mapping[str, Any], baseline: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The ratios between two cells of the same workload, over the rounds that both played (paired by block)."""
    blocks = sorted({r["block"] for r in arm["rounds"]} & {r["block"] for r in baseline["rounds"]})
    ours, theirs = ([{r["block"]: r for r in cell["rounds"]}[b] for b in blocks] for cell in (arm, baseline))
    throughputs = [np.array([r["finished"] / r["seconds"] for r in rounds]) for rounds in (ours, theirs)]
    latencies = [[np.array(r["latencies"]) for r in rounds] for rounds in (ours, theirs)]
    ratios = {"images_per_second": mean_ratio(throughputs[0], throughputs[1], seed=seed)}
    ratios |= {name: quantile_ratio(latencies[0], latencies[1], q, seed=seed) for name, q in QUANTILES.items()}
    return {
        "arm": arm["arm"],
        "baseline": baseline["arm"],
        "workload": arm["workload"],
        "rounds": len(blocks),
        "ratios": {name: asdict(ratio) if ratio else None for name, ratio in ratios.items()},
    }


def interval(data: Mapping[str, Any] | None) -> Interval | None:
    """The interval that a report's JSON holds."""
    return Interval(data["estimate"], data["low"], data["high"]) if data else None


def inverse(ratio: Interval) -> Interval:
    """A ratio of times as a ratio of speeds."""
    low, high = (None if bound is None or bound <= 0 else 1 / bound for bound in (ratio.high, ratio.low))
    return Interval(1 / ratio.estimate, low, high)


def times(ratio: Interval) -> str:
    """`2.91 x [2.74, 3.08]`."""
    bounds = "" if ratio.low is None or ratio.high is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
    return f"{ratio.estimate:.2f} x{bounds}"


def verdict(metric: str, ratio: Interval | None) -> str:
    """What a ratio to the baseline says about one metric, in words; a tie is called a tie."""
    name = "throughput" if metric == "images_per_second" else metric
    if ratio is None:
        return f"{name}: too few requests to say"
    if ratio.low is None:
        return f"{name}: too few rounds to say ({times(ratio)})"
    if not ratio.excludes(1.0):
        return f"{name}: no difference shown ({times(ratio)})"
    if metric == "images_per_second":
        return f"answers {times(ratio)} as many images per second"
    return f"{times(inverse(ratio))} faster at {name}" if ratio.estimate < 1 else f"{times(ratio)} slower at {name}"


def accuracy_verdict(held: Mapping[str, Any]) -> str:
    """The difference in accuracy, in percentage points, paired on the images that both arms answered."""
    difference = interval(held["difference"])
    if difference is None or difference.low is None or difference.high is None:
        return "accuracy: no image was answered by both"
    points = f"{in_points(difference)}, paired on {held['images']:,} images"
    return accuracy_words(difference, points, shown=held["mcnemar_p"] < SIGNIFICANT)


def in_points(difference: Interval) -> str:
    """`-0.05 points [-0.21, +0.11]`."""
    bounds = [f"{100 * bound:+.2f}" for bound in (difference.low, difference.high) if bound is not None]
    return f"{100 * difference.estimate:+.2f} points [{', '.join(bounds)}]"


def accuracy_words(difference: Interval, points: str, *, shown: bool = True) -> str:
    """`points` in words; a difference needs its interval, and `shown`, where there is an exact test beside it."""
    if shown and difference.excludes(0.0):
        return f"{'more' if difference.estimate > 0 else 'less'} accurate ({points})"
    return f"accuracy: no difference shown ({points})"


def verdicts(report: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Who was held against whom, and what came of it: first under load, then in accuracy."""
    cells = {(cell["arm"], cell["workload"]): cell for cell in report["cells"]}
    speed = [
        {
            "subject": f"{_pair(c, report)}, {c['workload']}",
            "verdicts": _saturation(c, cells) or [verdict(m, interval(c["ratios"][m])) for m in METRICS],
        }
        for c in report["comparisons"]
    ]
    held = [(row["arm"], row["against"]) for row in report["accuracy"] if "against" in row]
    accuracy = [
        {"subject": _pair({"arm": arm, **against}, report), "verdicts": [accuracy_verdict(against)]}
        for arm, against in held
    ]
    asked = report.get("levels", [])
    service_level = [{"subject": f"{asked[0]['slo']}", "verdicts": [words(level) for level in asked]}] if asked else []
    return [*service_level, *speed, *accuracy]


def _saturation(comparison: Mapping[str, Any], cells: Mapping[tuple[str, str], Mapping[str, Any]]) -> list[str]:
    """Where an arm cannot hold an open workload its latencies grow with the run: no ratio of them means anything."""
    sides = [cells[comparison[side], comparison["workload"]] for side in ("arm", "baseline")]
    if not any(side["saturated"] for side in sides):
        return []
    rate = "{arm} cannot hold this rate, it answered {requests_per_second:.1f} requests/s"
    return [rate.format(**side) if side["saturated"] else f"{side['arm']} holds this rate" for side in sides]


def _pair(pair: Mapping[str, Any], report: Mapping[str, Any]) -> str:
    devices = {arm["name"]: arm["device"] for arm in report["arms"]}
    own, other = devices[pair["arm"]], devices[pair["baseline"]]
    return f"{pair['arm']} against {pair['baseline']}" + ("" if own == other else f" ({own} against {other})")


def sentences(report: Mapping[str, Any]) -> list[str]:
    """The verdicts as one sentence each."""
    return [f"{v['subject']}: {'; '.join(v['verdicts'])}." for v in verdicts(report)]

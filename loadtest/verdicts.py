"""What the data say about two arms, in words; what they cannot separate is not ranked."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from loadtest.plan import Arm
from loadtest.statistics import Interval, mean_ratio, quantile_ratio
from loadtest.summary import QUANTILES

METRICS = ("images_per_second", *QUANTILES)


def baselines(arms: Sequence[Arm]) -> dict[str, str]:
    """Which arm each arm is held against: the one its card names, else fp32, else the first one; itself never.

    Between several URLs the first URL's arm of the same variant comes first: two builds are what is compared.
    """
    chosen = {}
    for arm in arms:
        same_url = [other for other in arms if other.url == arm.url]
        twins = [other for other in arms if other.variant == arm.variant and other.url != arm.url]
        named = [o for name in (arm.card.get("reference"), "fp32") for o in same_url if o.variant == name]
        candidates = [*(twins[:1] if arm.url != arms[0].url else []), *named, arms[0]]
        if candidates[0] != arm:
            chosen[arm.name] = candidates[0].name
    return chosen


def compare(arm: Mapping[str, Any], baseline: Mapping[str, Any], seed: int) -> dict[str, Any]:
    """The ratios between two cells of the same workload, over the rounds that both played (paired by block)."""
    blocks = sorted({r["block"] for r in arm["rounds"]} & {r["block"] for r in baseline["rounds"]})
    ours, theirs = ([{r["block"]: r for r in cell["rounds"]}[b] for b in blocks] for cell in (arm, baseline))
    throughputs = [np.array([r["finished"] / r["seconds"] for r in rounds]) for rounds in (ours, theirs)]
    latencies = [[np.array(r["latencies"]) for r in rounds] for rounds in (ours, theirs)]
    ratios = {"images_per_second": mean_ratio(throughputs[0], throughputs[1], seed)}
    ratios |= {name: quantile_ratio(latencies[0], latencies[1], q, seed) for name, q in QUANTILES.items()}
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


def ratio_words(ratio: Interval) -> str:
    """`2.91 x [2.74, 3.08]`."""
    bounds = "" if ratio.low is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
    return f"{ratio.estimate:.2f} x{bounds}"


def faster(ratio: Interval) -> Interval:
    """A ratio of times as a ratio of speeds."""
    flip = [None if v is None or v <= 0 else 1 / v for v in (ratio.high, ratio.low)]
    return Interval(1 / ratio.estimate, flip[0], flip[1])


def verdict(metric: str, comparison: Mapping[str, Any]) -> str:
    """One sentence about one metric; a tie is called a tie."""
    ratio = interval(comparison["ratios"].get(metric))
    arm, baseline = comparison["arm"], comparison["baseline"]
    what = "throughput" if metric == "images_per_second" else metric
    if ratio is None:
        return f"{what}: too few requests to say"
    if ratio.low is None:
        return f"{what}: too few rounds to say ({ratio.estimate:.2f} x)"
    if not ratio.excludes(1.0):
        return f"{what}: no difference shown ({ratio_words(ratio)})"
    if metric == "images_per_second":
        return f"{arm} answers {ratio_words(ratio)} as many images per second as {baseline}"
    if ratio.estimate < 1:
        return f"{arm} answers {ratio_words(faster(ratio))} faster than {baseline} at {metric}"
    return f"{arm} answers {ratio_words(ratio)} slower than {baseline} at {metric}"


def accuracy_verdict(row: Mapping[str, Any]) -> str:
    """One sentence about two arms' accuracy, in percentage points, paired on the images that both answered."""
    held = row["against"]
    difference = interval(held["difference"])
    if difference is None or difference.low is None or difference.high is None:
        return "accuracy: no image was answered by both"
    points = f"{100 * difference.estimate:+.2f} points [{100 * difference.low:+.2f}, {100 * difference.high:+.2f}]"
    where = f"paired on {held['images']:,} images"
    if held["mcnemar_p"] < 0.05 and difference.excludes(0.0):
        word = "more" if difference.estimate > 0 else "less"
        return f"{row['arm']} is {word} accurate than {held['baseline']} ({points}, {where})"
    return f"accuracy: no difference shown between {row['arm']} and {held['baseline']} ({points}, {where})"


def sentences(report: Mapping[str, Any]) -> list[str]:
    """The summary in words: what each arm gains or loses against the one it is held against."""
    devices = {arm["name"]: arm["device"] for arm in report["arms"]}
    lines = []
    for comparison in report["comparisons"]:
        arm, baseline = comparison["arm"], comparison["baseline"]
        mixed = "" if devices[arm] == devices[baseline] else f" ({devices[arm]} against {devices[baseline]})"
        verdicts = "; ".join(verdict(metric, comparison) for metric in METRICS)
        lines.append(f"{arm} against {baseline}{mixed}, {comparison['workload']}: {verdicts}.")
    lines += [accuracy_verdict(row) + "." for row in report["accuracy"] if "against" in row]
    return [line[0].upper() + line[1:] if line.startswith("accuracy") else line for line in lines]

"""The differences between two sides: two reports, whose runs were apart, or the paired arms of one report."""

from dataclasses import dataclass

import numpy as np

from common.statistics import Interval, paired_difference
from loadtest.analysis.accuracy import discordant
from loadtest.analysis.apart import mean_ratio, quantile_ratio
from loadtest.analysis.statistics import difference
from loadtest.analysis.words import accuracy_words, points, ratio_words, times
from loadtest.report.cells import QUANTILES, Cell
from loadtest.report.document import Comparison, Report
from loadtest.targets import PREDICT

METRICS = ("images_per_second", *QUANTILES, "accuracy")
INVALID = "not comparable, one of the cells is INVALID"
SATURATED = "not comparable, the rate was more than it can hold"


@dataclass(frozen=True)
class Difference:
    """One metric of one cell in report B compared with report A, or compared with its baseline in the same report."""

    arm: str
    workload: str
    """Empty for accuracy, which is counted over all workloads."""
    metric: str
    interval: Interval | None
    """The ratio to the other side, or for accuracy the difference to it; None if the data give none."""
    reason: str = ""
    """Why there is no interval, if that is known."""

    @property
    def place(self) -> str:
        """The arm and the workload."""
        return ", ".join(filter(None, (self.arm, self.workload)))

    @property
    def words(self) -> str:
        """The difference in words."""
        if self.reason:
            return f"{self.metric}: {self.reason}"
        if self.metric != "accuracy":
            return ratio_words(self.metric, self.interval)
        return accuracy_words(self.interval, points(self.interval)) if self.interval else "accuracy: not measured"

    @property
    def number(self) -> str:
        """The ratio with its interval; for accuracy the difference in words."""
        return self.words if self.interval is None or self.metric == "accuracy" else times(self.interval)

    @property
    def is_judged(self) -> bool:
        """True if there is a whole interval, so that a condition can fail or hold."""
        return self.interval is not None and self.interval.low is not None and self.interval.high is not None


def differences(old: Report, new: Report) -> list[Difference]:
    """Return every metric of every cell that both reports hold."""
    shared = [(before, cell) for cell in new.cells if (before := old.cell(cell.arm, cell.workload))]
    speed = [_cell_difference(a, b, metric) for a, b in shared for metric in METRICS[:-1]]
    arms = dict.fromkeys(b.arm for _, b in shared)
    return speed + [Difference(arm, "", "accuracy", accuracy(old, new, arm)) for arm in arms]


def paired(report: Report) -> list[Difference]:
    """Return every metric of every arm compared with its baseline in the same report.

    In a report of several services, only those arms count whose baseline is an arm of another service.
    """
    several = len(report.servers) > 1
    speed = [
        Difference(c.arm, c.workload, metric, *_paired(report, c, metric))
        for c in report.comparisons
        for metric in METRICS[:-1]
        if not several or label(c.arm) != label(c.baseline)
    ]
    held = [(row.arm, row.against) for row in report.accuracy if row.against]
    return speed + [
        Difference(arm, "", "accuracy", against.difference)
        for arm, against in held
        if not several or label(arm) != label(against.baseline)
    ]


def label(arm: str) -> str:
    """Return the label of the service in the name of an arm; empty if there is only one service."""
    return arm.partition(" @ ")[2]


def _paired(report: Report, found: Comparison, metric: str) -> tuple[Interval | None, str]:
    cells = report.sides(found)
    if any(cell.invalid for cell in cells):
        return None, INVALID
    if metric in QUANTILES and any(cell.saturated for cell in cells):
        return None, SATURATED
    return getattr(found.ratios, metric), ""


def missing(report: Report) -> list[str]:
    """Return a line for each variant that the user asked for, or that another service offers, and that was left out."""
    named = {*report.settings.variants, *(model for target in report.settings.urls for model in target.models)}
    asked = [e for e in report.excluded if e.name.split(" @ ")[0] in named]
    labels = {server.label for server in report.servers if server.protocol == PREDICT}
    offered = {(arm.variant, label(arm.name)) for arm in report.arms if label(arm.name) in labels}
    lacking = sorted({(variant, place) for variant, _ in offered for place in labels} - offered)
    return [f"MISSING: {e.name} ({e.reason})" for e in asked] + [f"MISSING: {v} @ {place}" for v, place in lacking]


def _cell_difference(a: Cell, b: Cell, metric: str) -> Difference:
    if a.invalid or b.invalid:
        return Difference(b.arm, b.workload, metric, None, INVALID)
    if metric in QUANTILES and (a.saturated or b.saturated):
        return Difference(b.arm, b.workload, metric, None, SATURATED)
    return Difference(b.arm, b.workload, metric, ratio(a, b, metric))


def ratio(a: Cell, b: Cell, metric: str) -> Interval | None:
    """Return the metric of cell `b` over that of cell `a`."""
    if metric == "images_per_second":
        rates = [np.array([r.answered / r.seconds for r in cell.rounds]) for cell in (b, a)]
        return mean_ratio(rates[0], rates[1])
    latencies = [[np.array(r.latencies) for r in cell.rounds] for cell in (b, a)]
    return quantile_ratio(latencies[0], latencies[1], QUANTILES[metric])


def accuracy(old: Report, new: Report, arm: str) -> Interval | None:
    """Return the accuracy in `new` minus that in `old`; paired by image if both sent the same images."""
    marks = [next(row.right for row in report.accuracy if row.arm == arm) for report in (new, old)]
    if new.images.sha256 == old.images.sha256:
        both = [pair for pair in zip(*marks, strict=True) if "-" not in pair]
        ours, theirs = (np.array([pair[side] == "1" for pair in both], dtype=np.bool_) for side in (0, 1))
        return paired_difference(*discordant(ours, theirs), len(ours)) if both else None
    counts = [(mark.count("1"), mark.count("1") + mark.count("0")) for mark in marks]
    return difference(counts[0], counts[1])

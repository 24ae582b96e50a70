"""The arms that may replace their baseline under one workload, and what speaks for and against each of them."""

from dataclasses import dataclass

from common.statistics import Interval
from loadtest.analysis.verdicts import SIGNIFICANT
from loadtest.analysis.words import accuracy_words, inverse, points, times
from loadtest.report.cells import QUANTILES, Cell
from loadtest.report.document import Against, Comparison, Ratios, Report

TAILS = ("p99", "p95", "p50")
IMAGES = "images_per_second"


@dataclass(frozen=True)
class Speed:
    """A ratio of speeds to the baseline: above 1 the arm is better."""

    metric: str
    ratio: Interval

    @property
    def is_gain(self) -> bool:
        """True if the arm is shown to be faster."""
        return self.ratio.low is not None and self.ratio.low > 1

    @property
    def is_loss(self) -> bool:
        """True if the arm is shown to be slower."""
        return self.ratio.high is not None and self.ratio.high < 1

    @property
    def is_known(self) -> bool:
        """True if there are enough rounds for an interval."""
        return self.ratio.low is not None and self.ratio.high is not None

    @property
    def words(self) -> str:
        """The ratio in words, such as `2.77 x [2.71, 2.82] the images`."""
        return f"{times(self.ratio)} " + ("the images" if self.metric == IMAGES else f"as fast at {self.metric}")

    @property
    def claim(self) -> str:
        """The words that follow the name of the arm, such as `is 1.50 x [1.20, 1.90] slower at p99`."""
        if self.metric == IMAGES:
            return f"answers {'only ' * self.is_loss}{self.words}"
        return f"is {times(inverse(self.ratio))} slower at {self.metric}" if self.is_loss else f"is {self.words}"


@dataclass(frozen=True)
class Candidate:
    """An arm and its baseline under one workload, both with valid cells."""

    cell: Cell
    baseline: Cell
    speeds: tuple[Speed, ...]
    """What a user of the workload feels, the most important first; empty if one of the arms cannot hold the rate."""
    against: Against | None

    @property
    def arm(self) -> str:
        """The name of the arm."""
        return self.cell.arm

    @property
    def gains(self) -> list[Speed]:
        """The shown gains of speed."""
        return [speed for speed in self.speeds if speed.is_gain]

    @property
    def losses(self) -> list[Speed]:
        """The shown losses of speed."""
        return [speed for speed in self.speeds if speed.is_loss]

    @property
    def is_known(self) -> bool:
        """True if the data say anything about the speed."""
        return any(speed.is_known for speed in self.speeds) or self.cell.saturated or self.baseline.saturated

    @property
    def is_faster(self) -> bool:
        """True if the arm gains and loses nothing, or holds a rate that the baseline does not hold."""
        return self.baseline.saturated if self.overload else bool(self.gains) and not self.losses

    @property
    def is_slower(self) -> bool:
        """True if the arm loses and gains nothing, or does not hold a rate that the baseline holds."""
        return self.cell.saturated if self.overload else bool(self.losses) and not self.gains

    @property
    def is_mixed(self) -> bool:
        """True if one number is shown to be better and another one to be worse."""
        return bool(self.gains and self.losses)

    @property
    def accuracy(self) -> int:
        """-1 if the arm is shown to be less accurate, 1 if more, 0 if neither is shown."""
        return accuracy_sign(self.against)

    @property
    def accuracy_words(self) -> str:
        """The accuracy against the baseline in words."""
        return accuracy_clause(self.against)

    @property
    def overload(self) -> str:
        """The arm that alone cannot hold an open workload, in words; empty if both hold it, or neither does."""
        if self.cell.saturated == self.baseline.saturated:
            return ""
        fails = self.cell if self.cell.saturated else self.baseline
        return f"{fails.arm} cannot hold this rate and answers {fails.requests_per_second:.1f} requests/s"

    @property
    def leading(self) -> Speed | None:
        """The most important speed: the first gain, else the first loss, else the first; None if none is known."""
        return next(iter(self.gains or self.losses or self.speeds), None)

    @property
    def claims(self) -> str:
        """The leading speed in a clause with the name of the arm."""
        return self.overload or f"{self.arm} {self.leading.claim if self.leading else 'has too few requests to say'}"


def accuracy_sign(held: Against | None) -> int:
    """Return -1 if an arm is shown to be less accurate than its baseline, 1 if more, 0 if neither is shown."""
    if held is None or held.difference is None or held.mcnemar_p >= SIGNIFICANT or not held.difference.excludes(0.0):
        return 0
    return -1 if held.difference.estimate < 0 else 1


def accuracy_clause(held: Against | None) -> str:
    """Return the accuracy of an arm against its baseline in words."""
    if held is None or held.difference is None:
        return "accuracy not measured"
    if not accuracy_sign(held):
        return f"no accuracy difference shown on {held.images:,} images"
    return accuracy_words(held.difference, points(held.difference))


def against(arm: str, report: Report) -> Against | None:
    """Return how the answers of an arm compare with those of its baseline, if they do."""
    return next((row.against for row in report.accuracy if row.arm == arm), None)


def candidate(comparison: Comparison, report: Report) -> Candidate:
    """Return the arm of a comparison as a candidate."""
    cell, baseline = report.sides(comparison)
    return Candidate(cell, baseline, speeds(comparison.ratios, cell, baseline), against(cell.arm, report))


def speeds(ratios: Ratios, cell: Cell, baseline: Cell) -> tuple[Speed, ...]:
    """Return the speeds that count under a workload.

    A closed workload: images per second, then the highest quantile that is stated. An open one that both arms hold: the
    quantile, then the p50, since both answer the same rate. One that neither holds: images per second alone.
    """
    images = [Speed(IMAGES, ratios.images_per_second)] if ratios.images_per_second else []
    if cell.saturated or baseline.saturated:
        return tuple(images if cell.saturated and baseline.saturated else [])
    stated = {name: value for name in QUANTILES if (value := getattr(ratios, name))}
    tail = next((name for name in TAILS if name in stated), None)
    latencies = [Speed(name, inverse(stated[name])) for name in dict.fromkeys((tail, "p50")) if name in stated]
    return tuple([*images, *latencies[:1]] if cell.rate is None else latencies)

"""Intervals in words. A difference that the data cannot show is called no difference."""

import math

from common.statistics import Interval


def inverse(ratio: Interval) -> Interval:
    """Return a ratio of times as a ratio of speeds."""
    low, high = (None if bound is None or bound <= 0 else 1 / bound for bound in (ratio.high, ratio.low))
    return Interval(1 / ratio.estimate, low, high)


def times(ratio: Interval) -> str:
    """Return a ratio as text, such as `2.91 x [2.74, 3.08]`."""
    bounds = "" if ratio.low is None or ratio.high is None else f" [{ratio.low:.2f}, {ratio.high:.2f}]"
    return f"{ratio.estimate:.2f} x{bounds}"


def ratio_words(metric: str, ratio: Interval | None) -> str:
    """Return what the ratio to the baseline says about one metric: `images_per_second` or a quantile of the latency."""
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


def significant(value: float) -> str:
    """Return a number from 0 with two significant digits, and with none after the point from 10 on."""
    digits = max(0, 1 - math.floor(math.log10(value))) if value > 0 else 0
    return f"{value:,.{digits}f}"


def milliseconds(seconds: float) -> str:
    """Return seconds as milliseconds with three significant digits at least, such as `9.81`, `10.5` or `1,235`."""
    value = 1000 * seconds
    return f"{value:,.{0 if value >= 100 else 1 if value >= 10 else 2}f}"


def estimate(interval: Interval) -> str:
    """Return an estimate with its interval as text, such as `0.11 [0.10, 0.12]`."""
    bounds = [significant(bound) for bound in (interval.low, interval.high) if bound is not None]
    return significant(interval.estimate) + (f" [{', '.join(bounds)}]" if bounds else "")


def points(difference: Interval) -> str:
    """Return a difference of shares in percentage points, such as `-0.05 points [-0.21, +0.11]`."""
    bounds = [f"{100 * bound:+.2f}" for bound in (difference.low, difference.high) if bound is not None]
    return f"{100 * difference.estimate:+.2f} points [{', '.join(bounds)}]"


def accuracy_words(difference: Interval, numbers: str, *, shown: bool = True) -> str:
    """Return a difference in accuracy in words, with its `numbers`.

    It counts as shown if the interval excludes 0 and `shown` is true: the result of an exact test, where there is one.
    """
    if shown and difference.excludes(0.0):
        return f"{'more' if difference.estimate > 0 else 'less'} accurate ({numbers})"
    return f"accuracy: no difference shown ({numbers})"

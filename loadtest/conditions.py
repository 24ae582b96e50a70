"""Conditions that a comparison must not meet, such as `p99>1.10`: `--fail-on` of the load test and of `diff`."""

import argparse
import re
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.analysis.differences import METRICS, Difference

FORM = re.compile(r"\s*(not\s+)?(\w+)\s*([<>])\s*(-?\d+(?:\.\d+)?)\s*")
GRAMMAR = """A CONDITION is [not] METRIC>NUMBER or [not] METRIC<NUMBER. METRIC is images_per_second, p50, p95 or p99
(a ratio), or accuracy (a difference in points). It is shown to be beyond NUMBER if its whole 95 % interval is.

  --fail-on "p99>1.10"            fails if p99 is shown to be more than 1.10 times the other
  --fail-on "not p99<1.10"        fails unless p99 is shown to be less than 1.10 times the other (non-inferiority)
  --fail-on "images_per_second<0.95"
  --fail-on "accuracy<-0.5"       fails if it is shown to be more than half a point less accurate
"""


@dataclass(frozen=True)
class Condition:
    """A condition such as `p99>1.10`, which holds where the whole interval lies beyond the bound."""

    metric: str
    sign: str
    bound: float
    is_negated: bool = False
    """True for a condition such as `not p99<1.10`, which holds where `p99<1.10` is not shown."""

    def failed(self, found: Difference) -> bool:
        """Return whether a comparison that has an interval meets the condition."""
        return self._shown(found) != self.is_negated

    def _shown(self, found: Difference) -> bool:
        interval = found.interval
        if interval is None or interval.low is None or interval.high is None:
            return False
        scale = 100 if self.metric == "accuracy" else 1
        return scale * interval.low > self.bound if self.sign == ">" else scale * interval.high < self.bound

    def __str__(self) -> str:
        return f"{'not ' * self.is_negated}{self.metric}{self.sign}{self.bound:g}"


@dataclass(frozen=True)
class Judgement:
    """The result of all conditions, a line for each that was met and for each that could not be judged."""

    failed: tuple[str, ...]
    undecided: tuple[str, ...]

    @property
    def code(self) -> int:
        """The exit code: 1 if a condition was met, 3 if one could not be judged, else 0."""
        return 1 if self.failed else 3 if self.undecided else 0


def judge(conditions: Sequence[Condition], found: Sequence[Difference], missing: Sequence[str] = ()) -> Judgement:
    """Return which conditions the comparisons meet. With conditions, each line of `missing` is undecided."""
    asked = [(c, d) for c in conditions for d in found if d.metric == c.metric]
    failed = [f"FAILED {c}: {d.place}: {d.number}" for c, d in asked if d.is_judged and c.failed(d)]
    undecided = [f"UNDECIDED {c}: {d.place}: {d.words}" for c, d in asked if not d.is_judged]
    absent = [f"UNDECIDED {c}: there is nothing to compare" for c in conditions if c not in [c for c, _ in asked]]
    return Judgement(tuple(failed), (*(missing if conditions else ()), *undecided, *absent))


def condition(text: str) -> Condition:
    """Return the condition that a flag states."""
    if not (match := FORM.fullmatch(text)) or match[2] not in METRICS:
        raise argparse.ArgumentTypeError(
            f"expected [not] METRIC>NUMBER or [not] METRIC<NUMBER with one of {', '.join(METRICS)}, got {text}"
        )
    return Condition(match[2], match[3], float(match[4]), bool(match[1]))

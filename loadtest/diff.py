"""`python -m loadtest diff a.json b.json --fail-on "p99>1.10"`: two reports with the statistics of one."""

import argparse
import json
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from tabulate import tabulate

from loadtest.statistics import Interval, difference, mean_ratio, paired_difference, quantile_ratio
from loadtest.summary import QUANTILES
from loadtest.verdicts import accuracy_words, in_points, times, verdict

SCHEMA = 1
METRICS = ("images_per_second", *QUANTILES, "accuracy")
EXIT_CODES = """METRIC is one of images_per_second, p50, p95, p99 (the ratio B / A) or accuracy (B - A in points).
A condition fails only where the whole 95 % interval lies beyond the bound: noise does not break a build.

  --fail-on "p99>1.10"            B's p99 is more than 10 % above A's
  --fail-on "images_per_second<0.95"
  --fail-on "accuracy<-0.5"       B is more than half a point less accurate

exit codes:
  0    no condition failed
  1    a condition failed; it is named
  2    wrong flags, or a file that is no report
  3    a report is INVALID, so nothing can be said; the differences are printed all the same
"""
CONDITION = re.compile(r"\s*(\w+)\s*([<>])\s*(-?\d+(?:\.\d+)?)\s*")


class Condition(NamedTuple):
    """`p99>1.10`"""

    metric: str
    sign: str
    bound: float

    def failed(self, found: Interval | None) -> bool:
        """Whether the whole interval lies beyond the bound."""
        if found is None or found.low is None or found.high is None:
            return False
        scale = 100 if self.metric == "accuracy" else 1
        return scale * found.low > self.bound if self.sign == ">" else scale * found.high < self.bound

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.bound:g}"


class Difference(NamedTuple):
    """One metric of one cell: how the second report's compares with the first's."""

    arm: str
    workload: str
    metric: str
    found: Interval | None

    @property
    def words(self) -> str:
        """In words; a tie is called a tie."""
        if self.metric == "accuracy":
            return accuracy_words(self.found, in_points(self.found)) if self.found else "accuracy: not measured"
        return verdict(self.metric, self.found)


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two reports and return the exit code: 0 fine, 1 a condition failed, 2 not comparable, 3 INVALID."""
    flags = parser().parse_args(argv)
    try:
        old, new = read(flags.a), read(flags.b)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = differences(old, new)
    if not found:
        print("error: the two reports share no variant under the same workload", file=sys.stderr)
        return 2
    print(tabulate([(d.arm, d.workload, d.words) for d in found], ("variant", "workload", "B against A")))
    invalid = [f"{name} is INVALID: {why}" for name, r in ((flags.a, old), (flags.b, new)) for why in r["invalid"]]
    failed = [(condition, d) for condition in flags.fail_on for d in found if d.metric == condition.metric]
    failed = [(condition, d) for condition, d in failed if condition.failed(d.found)]
    print(*invalid, *(f"FAILED {c}: {d.arm}, {d.workload}: {said(d)}" for c, d in failed), sep="\n")
    return 3 if invalid else 1 if failed else 0


def said(d: Difference) -> str:
    """The ratio or the points behind a failed condition."""
    assert d.found is not None
    return d.words if d.metric == "accuracy" else times(d.found)


def parser() -> argparse.ArgumentParser:
    """Two files and the conditions."""
    p = argparse.ArgumentParser(
        prog="python -m loadtest diff",
        description="Compare report B with report A, cell by cell.",
        epilog=EXIT_CODES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    p.add_argument("a", type=Path, help="report.json of the baseline")
    p.add_argument("b", type=Path, help="report.json of the candidate")
    p.add_argument(
        "--fail-on", type=condition, action="append", default=[], metavar="CONDITION", help="may be repeated"
    )
    return p


def condition(text: str) -> Condition:
    """The condition that a flag states."""
    if not (match := CONDITION.fullmatch(text)) or match[1] not in METRICS:
        raise argparse.ArgumentTypeError(f"expected METRIC>NUMBER or METRIC<NUMBER with one of {', '.join(METRICS)}")
    return Condition(match[1], match[2], float(match[3]))


def read(path: Path) -> dict[str, Any]:
    """A report.

    Raises:
        ValueError: the file is not a report of this version.
    """
    report = json.loads(path.read_text(encoding="utf-8"))
    if not isinstance(report, dict) or report.get("schema") != SCHEMA:
        raise ValueError(f"{path} is not a report of `python -m loadtest` (schema {SCHEMA})")
    return report


def differences(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[Difference]:
    """Every metric of every cell that both reports hold. The runs were apart, so nothing is paired."""
    before = {(cell["arm"], cell["workload"]): cell for cell in old["cells"]}
    shared = [(before[key], cell) for cell in new["cells"] if (key := (cell["arm"], cell["workload"])) in before]
    found = [
        Difference(b["arm"], b["workload"], metric, ratio(a, b, metric)) for a, b in shared for metric in METRICS[:-1]
    ]
    arms = dict.fromkeys(b["arm"] for _, b in shared)
    return found + [Difference(arm, "", "accuracy", accuracy(old, new, arm)) for arm in arms]


def ratio(a: Mapping[str, Any], b: Mapping[str, Any], metric: str) -> Interval | None:
    """The metric of cell `b` over that of cell `a`."""
    if metric == "images_per_second":
        rates = [np.array([r["finished"] / r["seconds"] for r in cell["rounds"]]) for cell in (b, a)]
        return mean_ratio(rates[0], rates[1], paired=False)
    latencies = [[np.array(r["latencies"]) for r in cell["rounds"]] for cell in (b, a)]
    return quantile_ratio(latencies[0], latencies[1], QUANTILES[metric], paired=False)


def accuracy(old: Mapping[str, Any], new: Mapping[str, Any], arm: str) -> Interval | None:
    """The share of right answers in `new` minus that in `old`; paired by image when both sent the same ones."""
    marks = [next(row["right"] for row in report["accuracy"] if row["arm"] == arm) for report in (new, old)]
    if new["images_sha256"] == old["images_sha256"]:
        both = [pair for pair in zip(*marks, strict=True) if "-" not in pair]
        ours, theirs = (np.array([pair[side] == "1" for pair in both], dtype=np.bool_) for side in (0, 1))
        return paired_difference(ours, theirs)
    counts = [(mark.count("1"), mark.count("1") + mark.count("0")) for mark in marks]
    return difference(counts[0], counts[1])

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

from common.statistics import Interval, paired_difference
from loadtest.analysis.accuracy import discordant
from loadtest.analysis.statistics import difference, mean_ratio, quantile_ratio
from loadtest.analysis.summary import QUANTILES
from loadtest.analysis.verdicts import accuracy_words, in_points, times, verdict

SCHEMA = 1
METRICS = ("images_per_second", *QUANTILES, "accuracy")
SAME = ("payload", "images_per_request", "contended")
"""Settings that must be equal: with others a ratio says nothing about the service."""
EXIT_CODES = """METRIC is one of images_per_second, p50, p95, p99 (the ratio B / A) or accuracy (B - A in points).
A condition fails only where the whole 95 % interval lies beyond the bound. The interval knows how much the rounds of
one run differ, not how much two runs do: a machine that others share can be slower in another hour. To judge two
builds, run both at once, in rounds that take turns: python -m loadtest --url old=URL --url new=URL

  --fail-on "p99>1.10"            B's p99 is more than 10 % above A's
  --fail-on "images_per_second<0.95"
  --fail-on "accuracy<-0.5"       B is more than half a point less accurate

exit codes:
  0    no condition failed
  1    a condition failed; it is named
  2    wrong flags, a file that is no report, or two reports that were measured with different settings
  3    a report is INVALID or was stopped early, or there are conditions and one could not be judged: a variant of A is
       missing in B, or there are too few requests or rounds; the differences are printed all the same
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
    reason: str = ""
    """Why nothing was found, where that is known."""

    @property
    def words(self) -> str:
        """In words; a tie is called a tie."""
        if self.reason:
            return f"{self.metric}: {self.reason}"
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
    if different := [key for key in SAME if old["settings"].get(key) != new["settings"].get(key)]:
        print(f"error: the reports were measured with different settings: {', '.join(different)}", file=sys.stderr)
        return 2
    found = differences(old, new)
    if not found:
        print("error: the two reports share no variant under the same workload", file=sys.stderr)
        return 2
    print(tabulate([(d.arm, d.workload, d.words) for d in found], ("variant", "workload", "B against A")))
    cpus = [report["client"]["cpu"] for report in (old, new)]
    if cpus[0] != cpus[1]:
        print(f"not the same machine: {cpus[0]} and {cpus[1]}")
    invalid = [line for name, report in ((flags.a, old), (flags.b, new)) for line in unsound(name, report)]
    asked = [(c, d) for c in flags.fail_on for d in found if d.metric == c.metric]
    failed = [f"FAILED {c}: {d.arm}, {d.workload}: {said(d)}" for c, d in asked if c.failed(d.found)]
    undecided = [(c, d) for c, d in asked if d.found is None or d.found.low is None]
    unknown = [*lost(old, new), *(f"UNDECIDED {c}: {d.arm}, {d.workload}: {d.words}" for c, d in undecided)]
    print(*invalid, *unknown, *failed, sep="\n")
    if invalid:
        return 3
    return 1 if failed else 3 if flags.fail_on and unknown else 0


def unsound(name: Path, report: Mapping[str, Any]) -> list[str]:
    """Why a report proves nothing."""
    early = [f"{name} is partial: its run was stopped early"] if report["partial"] else []
    return early + [f"{name} is INVALID: {why}" for why in report["invalid"]]


def lost(old: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What the first report measured and the second did not."""
    kept = {(cell["arm"], cell["workload"]) for cell in new["cells"]}
    cells = [(cell["arm"], cell["workload"]) for cell in old["cells"]]
    return [f"MISSING in B: {arm}, {workload}" for arm, workload in cells if (arm, workload) not in kept]


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
    found = [_difference(a, b, metric) for a, b in shared for metric in METRICS[:-1]]
    arms = dict.fromkeys(b["arm"] for _, b in shared)
    return found + [Difference(arm, "", "accuracy", accuracy(old, new, arm)) for arm in arms]


def _difference(a: Mapping[str, Any], b: Mapping[str, Any], metric: str) -> Difference:
    if metric in QUANTILES and (a["saturated"] or b["saturated"]):
        return Difference(b["arm"], b["workload"], metric, None, "not comparable, the rate was more than it can hold")
    return Difference(b["arm"], b["workload"], metric, ratio(a, b, metric))


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
        return paired_difference(*discordant(ours, theirs), len(ours)) if len(ours) else None
    counts = [(mark.count("1"), mark.count("1") + mark.count("0")) for mark in marks]
    return difference(counts[0], counts[1])

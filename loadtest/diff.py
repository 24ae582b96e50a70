"""The command that compares two reports: `python -m loadtest diff a.json b.json --fail-on "p99>1.10"`."""

import argparse
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from tabulate import tabulate

from loadtest.analysis.differences import METRICS, Difference, differences
from loadtest.report.document import Report
from loadtest.report.schema import read

SAME = ("payload", "images_per_request", "contended")
"""Settings that must be equal: with others a ratio says nothing about the service."""
EXIT_CODES = """METRIC is one of images_per_second, p50, p95, p99 (the ratio B / A) or accuracy (B - A in points).
A condition fails only where the whole 95 % interval lies beyond the bound. The interval covers how much the rounds of
one run differ, not how much two runs differ: a machine that others share can be slower in another hour. To judge two
builds, run both at once, in rounds that take turns: python -m loadtest --url old=URL --url new=URL

  --fail-on "p99>1.10"            B's p99 is more than 10 % above A's
  --fail-on "images_per_second<0.95"
  --fail-on "accuracy<-0.5"       B is more than half a point less accurate

exit codes:
  0    no condition failed
  1    a condition failed; it is named
  2    wrong flags, a file that is no report of this version, or two reports that were measured with different settings
  3    a report is INVALID or was stopped early, or there are conditions and one could not be judged: a variant of A is
       missing in B, or there are too few requests or rounds; the differences are printed all the same
"""
CONDITION = re.compile(r"\s*(\w+)\s*([<>])\s*(-?\d+(?:\.\d+)?)\s*")


@dataclass(frozen=True)
class Condition:
    """A condition such as `p99>1.10`, which a report must not meet."""

    metric: str
    sign: str
    bound: float

    def failed(self, found: Difference) -> bool:
        """Return whether the whole interval lies beyond the bound."""
        interval = found.interval
        if interval is None or interval.low is None or interval.high is None:
            return False
        scale = 100 if self.metric == "accuracy" else 1
        return scale * interval.low > self.bound if self.sign == ">" else scale * interval.high < self.bound

    def __str__(self) -> str:
        return f"{self.metric}{self.sign}{self.bound:g}"


def main(argv: Sequence[str] | None = None) -> int:
    """Compare two reports and return the exit code: 0 fine, 1 a condition failed, 2 not comparable, 3 INVALID."""
    flags = parser().parse_args(argv)
    try:
        old, new = read(flags.a), read(flags.b)
    except (OSError, ValueError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    found = differences(old, new)
    if reason := incomparable(old, new, found):
        print(f"error: {reason}", file=sys.stderr)
        return 2
    print(tabulate([(d.arm, d.workload, d.words) for d in found], ("variant", "workload", "B against A")))
    if old.client.cpu != new.client.cpu:
        print(f"not the same machine: {old.client.cpu} and {new.client.cpu}")
    unsound = [*reasons(flags.a, old), *reasons(flags.b, new)]
    asked = [(c, d) for c in flags.fail_on for d in found if d.metric == c.metric]
    failed = [f"FAILED {c}: {d.arm}, {d.workload}: {d.number}" for c, d in asked if c.failed(d)]
    undecided = [f"UNDECIDED {c}: {d.arm}, {d.workload}: {d.words}" for c, d in asked if not d.is_judged]
    unknown = [*missing(old, new), *undecided]
    print(*unsound, *unknown, *failed, sep="\n")
    if unsound:
        return 3
    return 1 if failed else 3 if flags.fail_on and unknown else 0


def incomparable(old: Report, new: Report, found: Sequence[Difference]) -> str:
    """Return why the reports cannot be compared; empty if they can."""
    if different := [key for key in SAME if getattr(old.settings, key) != getattr(new.settings, key)]:
        return f"the reports were measured with different settings: {', '.join(different)}"
    return "" if found else "the two reports share no variant under the same workload"


def reasons(name: Path, report: Report) -> list[str]:
    """Return why a report proves nothing."""
    early = [f"{name} is partial: its run was stopped early"] if report.partial else []
    return early + [f"{name} is INVALID: {why}" for why in report.reasons]


def missing(old: Report, new: Report) -> list[str]:
    """Return a line for each cell of the first report that the second one lacks."""
    return [f"MISSING in B: {c.arm}, {c.workload}" for c in old.cells if not new.cell(c.arm, c.workload)]


def parser() -> argparse.ArgumentParser:
    """Return the parser of two files and the conditions."""
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
    """Return the condition that a flag states."""
    if not (match := CONDITION.fullmatch(text)) or match[1] not in METRICS:
        raise argparse.ArgumentTypeError(f"expected METRIC>NUMBER or METRIC<NUMBER with one of {', '.join(METRICS)}")
    return Condition(match[1], match[2], float(match[3]))

"""The command that compares two reports: `python -m loadtest diff a.json b.json --fail-on "p99>1.10"`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from tabulate import tabulate

from loadtest.analysis.differences import Difference, differences
from loadtest.conditions import GRAMMAR, condition, judge
from loadtest.report.document import Report
from loadtest.report.schema import read

SAME = ("payload", "images_per_request", "contended")
"""Settings that must be equal: with others a ratio says nothing about the service."""
EXIT_CODES = f"""Each number is a ratio B / A, or for accuracy B - A. The runs were apart, so the intervals allow for a
machine whose pace wanders, and are wider than those of rounds that take turns. They do not cover a pace that is
constant in each run and differs between the runs. To judge two builds, run both at once, with the same --fail-on:
python -m loadtest --url old=URL --url new=URL

{GRAMMAR}
exit codes:
  0    no condition failed
  1    a condition failed; it is named
  2    wrong flags, a file that is no report of this version, or two reports that were measured with different settings
  3    a report is INVALID or was stopped early, or there are conditions and one could not be judged: a variant of A is
       missing in B, or there are too few requests or rounds; the differences are printed all the same
"""


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
    gone = missing(old, new)
    judgement = judge(flags.fail_on, found, gone)
    print(*unsound, *(judgement.undecided or gone), *judgement.failed, sep="\n")
    return 3 if unsound else judgement.code


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

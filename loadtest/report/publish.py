"""A report on its way to the user: its files, and its results on the terminal."""

import sys
from pathlib import Path

from loadtest.console import tell
from loadtest.report.document import Report
from loadtest.report.table import text
from loadtest.report.write import write


def publish(report: Report, folder: Path) -> None:
    """Write the files of a report into `folder`, then print its results."""
    tell(f"wrote {', '.join(map(str, write(report, folder)))}", sys.stderr)
    invalid = [f"INVALID: {reason}" for reason in report.reasons]
    tell("\n".join([*report.notes, "", *report.summary, *invalid, "", text(report, "simple")]), sys.stdout)

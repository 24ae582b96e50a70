"""A report on its way to the user: its files, and its results on the terminal."""

import sys
import textwrap
from collections.abc import Sequence
from pathlib import Path

from loadtest.console import tell
from loadtest.report.document import Report
from loadtest.report.markdown import money
from loadtest.report.table import TERMINAL, narrow
from loadtest.report.write import write


def publish(report: Report, folder: Path) -> None:
    """Write the files of a report into `folder`, then print its results."""
    tell(f"wrote {', '.join(map(str, write(report, folder)))}", sys.stderr)
    tell(summary(report), sys.stdout)


def summary(report: Report) -> str:
    """Return the results for a terminal. The decisions come last, where the eye is when the run ends."""
    invalid = [f"INVALID: {reason}" for reason in report.reasons]
    details = [*report.notes, *money(report), *report.summary]
    decisions = [f"=> {decision.sentence}" for decision in report.decisions]
    parts = [wrapped(details), wrapped(invalid), narrow(report), wrapped(decisions)]
    return "\n\n".join(part for part in parts if part)


def wrapped(lines: Sequence[str]) -> str:
    """Return the lines, each broken between words so that it fits the terminal; what follows is indented."""
    return "\n".join(textwrap.fill(line, TERMINAL, subsequent_indent="   ", break_on_hyphens=False) for line in lines)

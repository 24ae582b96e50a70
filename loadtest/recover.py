"""The command that makes a report of a run that was killed: `python -m loadtest report FOLDER`."""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from loadtest.client.classes import chosen
from loadtest.client.images import ImagesError, bodies
from loadtest.console import tell
from loadtest.journal import NoRecord, Record, read
from loadtest.measured import Measured
from loadtest.report.build import build
from loadtest.report.publish import publish

EPILOG = """The load test writes FOLDER/requests.csv.gz and FOLDER/rounds.jsonl.gz while it runs. The report is partial.

exit codes:
  0  the report was written
  2  there is nothing to report: FOLDER holds no whole round of a run of this version
  3  the report was written but marked INVALID; it says why
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Write the report and return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m loadtest report",
        description="Make a report of the rounds of a run that was killed.",
        epilog=EPILOG,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("folder", type=Path, help="the folder that --out named")
    folder = parser.parse_args(argv).folder
    try:
        record = read(folder)
        measured = recovered(record)
    except (OSError, NoRecord, ImagesError) as error:
        tell(f"error: {error}", sys.stderr)
        return 2
    report = build(measured, record.started.options, record.started.command)
    publish(report, folder)
    return 3 if report.reasons else 0


def recovered(record: Record) -> Measured:
    """Return the run as far as it came.

    Raises:
        NoRecord: no round ended.
        ImagesError: the images that were sent are no longer there.
    """
    if not record.played:
        raise NoRecord("no round ended")
    options = record.started.options
    described = [description for _, description in record.started.subjects.services]
    images = chosen(options.images, options.payload, described)
    return Measured(
        record.started.subjects,
        images,
        bodies(images, options.payload, options.images_per_request, options.seed),
        record.played,
        record.levels,
        record.searched,
        partial=True,
        seconds=[*record.played, *(run.played for run in record.searched)][-1].stretch.closed
        - record.played[0].stretch.opened,
        metering=record.started.metering,
    )

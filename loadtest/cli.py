"""The command `python -m loadtest --url URL --variants fp32,int8 --concurrency 1,8 --duration 20 --out DIR`."""

import sys

from loadtest.analysis.differences import missing, paired
from loadtest.client.images import ImagesError
from loadtest.client.server import ServerError
from loadtest.conditions import judge
from loadtest.console import tell
from loadtest.flags import parse

NOTHING = "stopped before the first round ended: there is nothing to report"


def main(argv: list[str] | None = None) -> int:
    """Run the load test and return its exit code; loadtest/flags.py lists them."""
    arguments = sys.argv[1:] if argv is None else argv
    options, folder, conditions = parse(arguments)
    command = ("python", "-m", "loadtest", *arguments)
    from loadtest.report.build import build  # noqa: PLC0415 - locust patches the sockets when it is imported
    from loadtest.report.publish import publish  # noqa: PLC0415
    from loadtest.run import NothingToMeasure, measure  # noqa: PLC0415

    try:
        measured = measure(options, command, folder)
    except (ImagesError, ServerError, NothingToMeasure, OSError) as error:
        return _nothing(f"error: {error}", 2)
    except KeyboardInterrupt:
        return _nothing(NOTHING, 130)
    stopped = 128 + measured.stopped_by if measured.stopped_by else 0
    if not measured.played and measured.problems:
        return _nothing("\n".join(f"error: {problem}" for problem in measured.problems), 2)
    if not measured.played:
        return _nothing(NOTHING, stopped)
    report = build(measured, options, command)
    publish(report, folder)
    judgement = judge(conditions, paired(report), missing(report))
    tell("\n".join((*judgement.undecided, *judgement.failed)), sys.stdout)
    return stopped or (3 if report.reasons else judgement.code)


def _nothing(why: str, code: int) -> int:
    tell(why, sys.stderr)
    return code

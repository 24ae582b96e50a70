"""The command `python -m loadtest --url URL --variants fp32,int8 --concurrency 1,8 --duration 20 --out DIR`."""

import sys

from loadtest.client.images import ImagesError
from loadtest.client.server import ServerError
from loadtest.flags import parse


def main(argv: list[str] | None = None) -> int:
    """Run the load test and return the exit code: 0 measured, 2 nothing measured, 3 INVALID, 130 stopped by Ctrl-C."""
    arguments = sys.argv[1:] if argv is None else argv
    options, folder = parse(arguments)
    from loadtest.report.build import build  # noqa: PLC0415 - locust patches the sockets when it is imported
    from loadtest.report.table import text  # noqa: PLC0415
    from loadtest.report.write import write, write_requests  # noqa: PLC0415
    from loadtest.run import NothingToMeasure, measure  # noqa: PLC0415

    try:
        measured = measure(options)
    except (ImagesError, ServerError, NothingToMeasure) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    if not measured.played and measured.problems:
        print(*(f"error: {problem}" for problem in measured.problems), sep="\n", file=sys.stderr)
        return 2
    if not measured.played:
        print("stopped before the first round ended: there is nothing to report", file=sys.stderr)
        return 130
    report = build(measured, options, ["python", "-m", "loadtest", *arguments])
    files = [*write(report, folder), write_requests(measured.played, folder)]
    print("wrote", ", ".join(str(file) for file in files), file=sys.stderr)
    invalid = [f"INVALID: {reason}" for reason in report.reasons]
    print(*report.notes, "", *report.summary, *invalid, "", text(report, "simple"), sep="\n")
    if measured.partial and not measured.problems:
        return 130
    return 3 if report.reasons else 0

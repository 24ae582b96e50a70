"""The files of a report."""

import csv
import gzip
from collections.abc import Sequence
from pathlib import Path

from loadtest.records import Played, Request
from loadtest.report.document import Report
from loadtest.report.html import html
from loadtest.report.markdown import markdown
from loadtest.report.schema import to_json


def write(report: Report, folder: Path) -> list[Path]:
    """Write `report.json`, `report.md` and `report.html` into `folder`, and return their paths."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {"report.json": to_json(report), "report.md": markdown(report), "report.html": html(report)}
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def write_requests(played: Sequence[Played], folder: Path) -> Path:
    """Write every request of every round, unrounded, into `requests.csv.gz`, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "requests.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=4, newline="") as file:
        table = csv.writer(file)
        table.writerow(("arm", "workload", "block", "counted", *Request._fields))
        for p in played:
            for request in p.requests:
                counted = int(p.stretch.counts(request))
                values = request._replace(answer=" ".join(map(str, request.answer)))  # type: ignore[arg-type] # as text
                table.writerow((p.arm.name, p.round.workload.name, p.round.block, counted, *values))
    return path

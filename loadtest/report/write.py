"""Writes a report's files."""

import csv
import gzip
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from loadtest.records import Played, Request
from loadtest.report.html import html
from loadtest.report.markdown import markdown


def write(report: Mapping[str, Any], folder: Path) -> list[Path]:
    """Write `report.json`, `report.md` and `report.html` into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    texts = {
        "report.json": json.dumps(report, allow_nan=False, ensure_ascii=False, separators=(",", ":")),
        "report.md": markdown(report),
        "report.html": html(report),
    }
    for name, text in texts.items():
        (folder / name).write_text(text, encoding="utf-8")
    return [folder / name for name in texts]


def write_requests(played: Sequence[Played], folder: Path) -> Path:
    """Write every request of every round, unrounded, into `requests.csv.gz`."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / "requests.csv.gz"
    with gzip.open(path, "wt", encoding="utf-8", compresslevel=4, newline="") as file:
        table = csv.writer(file)
        table.writerow(("arm", "workload", "block", "counted", *Request._fields))
        for p in played:
            for r in p.requests:
                counted = int(p.opened <= r.intended < p.closed)
                answer = " ".join(map(str, r.answer))
                table.writerow((p.arm.name, p.round.workload.name, p.round.block, counted, *r[:6], answer, *r[7:]))
    return path

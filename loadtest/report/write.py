"""The files of a report."""

from pathlib import Path

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

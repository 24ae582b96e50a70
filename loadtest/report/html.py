"""The report as one HTML file that needs nothing else."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader

from loadtest.report.markdown import ran_on
from loadtest.report.table import HEADERS, rows


def html(report: Mapping[str, Any]) -> str:
    """One self-contained page: words first, then the table, then what it ran on."""
    environment = Environment(loader=PackageLoader("loadtest.report"), autoescape=True, trim_blocks=True)
    return environment.get_template("report.html.j2").render(
        report=report, headers=HEADERS, rows=rows(report), ran_on=ran_on(report)
    )

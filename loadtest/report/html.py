"""The report as one HTML file that needs nothing else."""

from collections.abc import Mapping
from typing import Any

from jinja2 import Environment, PackageLoader

from loadtest.progress import duration
from loadtest.report.charts import charts
from loadtest.report.groups import groups
from loadtest.report.markdown import ran_on
from loadtest.report.table import HEADERS, rows


def html(report: Mapping[str, Any]) -> str:
    """One self-contained page: words first, then the table, the charts by device, and what it ran on."""
    environment = Environment(
        loader=PackageLoader("loadtest.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"duration": duration, "thousands": "{:,}".format}
    drawn = {device: charts(group) for device, group in groups(report).items() if group.cells}
    return environment.get_template("report.html.j2").render(
        report=report,
        headers=HEADERS,
        rows=rows(report),
        charts=drawn,
        devices=device_names(report),
        ran_on=ran_on(report),
    )


def device_names(report: Mapping[str, Any]) -> dict[str, str]:
    """`cpu` as `cpu (Intel Xeon ...)` where a card says so."""
    cards = [card for server in report["servers"] for card in server["variants"]]
    named = {str(c.get("device")): c["device_name"] for c in cards if c.get("device_name")}
    return {arm["device"]: named.get(arm["device"], "") for arm in report["arms"]}

"""The report as one HTML file that loads nothing else."""

from jinja2 import Environment, PackageLoader

from loadtest.progress import duration
from loadtest.report.charts import charts
from loadtest.report.document import Report
from loadtest.report.groups import groups
from loadtest.report.markdown import extent, ran_on
from loadtest.report.table import HEADERS, rows


def html(report: Report) -> str:
    """Return one self-contained page: words first, then the table, the charts by device, and both machines."""
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
        extent=extent(report),
        ran_on=ran_on(report),
    )


def device_names(report: Report) -> dict[str, str]:
    """Return the full name of each device, such as `Intel Xeon ...` for `cpu`; empty where no service states it."""
    named = {row.device: row.device_name for server in report.servers for row in server.variants if row.device_name}
    return {arm.device: named.get(arm.device) or "" for arm in report.arms}

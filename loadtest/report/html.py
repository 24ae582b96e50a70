"""The report as one HTML file that loads nothing else."""

from jinja2 import Environment, PackageLoader

from loadtest.progress import duration
from loadtest.report.charts import charts
from loadtest.report.document import Report
from loadtest.report.forest import forest
from loadtest.report.groups import groups
from loadtest.report.markdown import energy, extent, money, ran_on
from loadtest.report.table import table


def html(report: Report) -> str:
    """Return one self-contained page: decisions, charts, the table, the results in words, and both machines."""
    environment = Environment(
        loader=PackageLoader("loadtest.report"), autoescape=True, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"duration": duration, "thousands": "{:,}".format}
    drawn = {device: charts(group) for device, group in groups(report).items() if group.everything}
    return environment.get_template("report.html.j2").render(
        report=report,
        everywhere=everywhere(report),
        forest=forest(report),
        table=table(report),
        charts=drawn,
        energy=energy(report),
        money=money(report),
        devices=device_names(report),
        extent=extent(report),
        ran_on=ran_on(report),
    )


def everywhere(report: Report) -> str:
    """Return the arm that every decision names alone; empty if they differ."""
    chosen = {decision.choice for decision in report.decisions}
    only = next(iter(chosen), ()) if len(chosen) == 1 else ()
    return only[0] if len(only) == 1 and len(report.decisions) > 1 else ""


def device_names(report: Report) -> dict[str, str]:
    """Return the full name of each device, such as `Intel Xeon ...` for `cpu`; empty where no service states it."""
    named = {row.device: row.device_name for server in report.servers for row in server.variants if row.device_name}
    return {arm.device: named.get(arm.device) or "" for arm in report.arms}

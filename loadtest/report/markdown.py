"""The report in Markdown, for a README or a pull request."""

from collections.abc import Mapping, Sequence
from typing import Any

from loadtest.client.classes import listed
from loadtest.report.document import Report
from loadtest.report.table import text

GITHUB = "pipe"
LONGEST = 80
"""Characters of a fact; longer ones are left to the JSON."""
ENGINE = ("device_name", "dtype", "backend", "backend_version", "isa", "threads", "torch")


def markdown(report: Report) -> str:
    """Return the summary in words, the table, and the description of both machines."""
    parts = ["# Load test", bullets(report.summary)]
    if report.reasons:
        parts += [f"**INVALID**: {extent(report)}", bullets(report.reasons)]
    parts += [text(report, GITHUB), bullets(report.notes), "## What it ran on"]
    parts.append(bullets([f"{key}: {value}" for key, value in ran_on(report).items()]))
    return "\n\n".join(part for part in parts if part) + "\n"


def extent(report: Report) -> str:
    """Return which numbers of an INVALID report must not be used."""
    if report.is_void:
        return "no number of the table must be used."
    return f"the cells below must not be used and get no verdict. Valid: {'; '.join(report.valid)}."


def bullets(lines: Sequence[str]) -> str:
    """Return a Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def ran_on(report: Report) -> dict[str, str]:
    """Return both machines and the settings, a line each."""
    client, settings = report.client, report.settings
    lines = {}
    for server in report.servers:
        name = f"service {server.label}".strip()
        lines[name] = facts(server.service)
        lines[name + " checkpoint"] = facts(server.checkpoint)
        for row in server.variants:
            if row.state == "ready":
                lines[f"{row.name} {server.label}".strip()] = facts({key: getattr(row, key) for key in ENGINE})
    lines["load generator"] = f"{client.cpu}, {client.cores} cores, {client.platform}, locust {client.locust}"
    images = report.images
    classes = f" of {listed(images.classes)}" if images.classes else ""
    lines["images"] = (
        f"{images.count:,}{classes} as {', '.join(images.formats)}, {settings.images_per_request} per request"
    )
    lines["rounds"] = f"{played(report)}, {settings.warm_up:g} s warm-up discarded"
    lines["seed, revision"] = f"{settings.seed}, {client.git_revision}"
    lines["made"] = f"{report.created} by `{' '.join(report.command)}`"
    return lines


def played(report: Report) -> str:
    """Return a description of the rounds that were played; they can be more or fewer than the planned ones."""
    counts = [len(cell.rounds) for cell in report.cells]
    rounds = [one for cell in report.cells for one in cell.rounds]
    seconds, settles = [one.seconds for one in rounds], [one.settle for one in rounds]
    order = "all arms loaded at once" if report.settings.contended else "arms interleaved (ABBA)"
    pauses = ", those of open workloads on end" if report.settings.continuous else ""
    return f"{span(counts)} rounds of {span(seconds)} s per cell, {order}{pauses}, {span(settles)} s to settle"


def span(values: Sequence[float]) -> str:
    """Return the range of the values, such as `20` or `20 to 30`."""
    low, high = min(values, default=0), max(values, default=0)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def facts(values: Mapping[str, Any]) -> str:
    """Return the short, flat values in words, such as `version 1, cores 2`; the JSON holds the others."""
    plain = {k: v for k, v in values.items() if isinstance(v, str | int | float) and 0 < len(str(v)) <= LONGEST}
    return ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in plain.items()) or "not stated"

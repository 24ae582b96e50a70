"""The report in Markdown, for a README or a pull request."""

from collections.abc import Mapping, Sequence
from typing import Any

from loadtest.analysis.words import estimate
from loadtest.client.classes import listed
from loadtest.report.document import Decision, Report
from loadtest.report.table import text

GITHUB = "pipe"
LONGEST = 80
"""Characters of a fact; longer ones are left to the JSON."""
ENGINE = ("device_name", "dtype", "backend", "backend_version", "isa", "threads", "torch")


def markdown(report: Report) -> str:
    """Return the decisions, the results in words, the table, and the description of both machines."""
    parts = ["# Load test", bullets([decided(decision) for decision in report.decisions])]
    if report.reasons:
        parts += [f"**INVALID**: {extent(report)}", bullets(report.reasons)]
    parts += ["## In numbers", bullets([*report.summary, *money(report)]), text(report, GITHUB)]
    parts += [bullets([*report.notes, *energy(report)]), "## What it ran on"]
    parts.append(bullets([f"{key}: {value}" for key, value in ran_on(report).items()]))
    return "\n\n".join(part for part in parts if part) + "\n"


def decided(decision: Decision) -> str:
    """Return a decision in Markdown, with the arms to run in bold type."""
    chosen = " or ".join(f"**{arm}**" for arm in decision.choice)
    return f"{decision.subject}: {', '.join(filter(None, (chosen, decision.words)))}."


def money(report: Report) -> list[str]:
    """Return the price of a million images, a line per arm; nothing if the price per hour is not known."""
    per_hour = report.settings.price_per_hour
    return [
        f"{price.arm}: a million images cost {estimate(price.per_million)} at {per_hour:g} an hour "
        f"({price.images_per_second:,.1f} images/s with {price.workload}, its best valid load)."
        for price in report.prices
    ]


def energy(report: Report) -> list[str]:
    """Return how the energy was measured, or why it was not."""
    meters, watts = report.energy.meters, report.energy.idle_watts
    what = "A part of the energy" if meters else "Energy"
    lines = [f"{what} is not measured: {reason}." for reason in report.energy.missing]
    if meters and (report.settings.contended or report.settings.continuous):
        lines.append("Rounds of several arms that overlap (--contended, --continuous) have no energy of their own.")
    if meters:
        idle = "" if watts is None else f" Idle before the run, they showed {watts:.1f} W."
        lines.append(
            f"Energy is the sum of {', '.join(meters)}, over the whole machine, load generator included.{idle}"
        )
    return lines


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

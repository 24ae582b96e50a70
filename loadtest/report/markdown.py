"""The report for a README or a pull request."""

from collections.abc import Mapping, Sequence
from typing import Any

from loadtest.report.table import text

GITHUB = "pipe"


def markdown(report: Mapping[str, Any]) -> str:
    """Summary in words, table, and what it ran on."""
    parts = ["# Load test"]
    if report["invalid"]:
        parts += ["**INVALID**: these numbers must not be used.", bullets(report["invalid"])]
    parts += [bullets(report["summary"]), text(report, GITHUB), bullets(report["notes"]), "## What it ran on"]
    parts.append(bullets([f"{key}: {value}" for key, value in ran_on(report).items()]))
    return "\n\n".join(part for part in parts if part) + "\n"


def bullets(lines: list[str]) -> str:
    """A Markdown list."""
    return "\n".join(f"- {line}" for line in lines)


def ran_on(report: Mapping[str, Any]) -> dict[str, str]:
    """Both machines and the settings, a line each."""
    client, settings = report["client"], report["settings"]
    lines = {}
    for server in report["servers"]:
        name = f"service {server['label']}".strip()
        lines[name] = facts(server.get("service", {}))
        lines[name + " checkpoint"] = facts(server.get("checkpoint", {}))
        for card in server["variants"]:
            if card["state"] == "ready":
                keys = ("device_name", "dtype", "backend", "backend_version", "isa", "threads", "torch")
                lines[f"{card['name']} {server['label']}".strip()] = facts({key: card.get(key) for key in keys})
    lines["load generator"] = f"{client['cpu']}, {client['cores']} cores, {client['os']}, locust {client['locust']}"
    lines["images"] = f"{report['images']:,} as {settings['payload']}, {settings['images_per_request']} per request"
    lines["rounds"] = f"{played(report)}, {settings['warm_up']:g} s warm-up discarded"
    lines["seed, revision"] = f"{settings['seed']}, {client['git_revision']}"
    lines["made"] = f"{report['created']} by `{' '.join(report['command'])}`"
    return lines


def played(report: Mapping[str, Any]) -> str:
    """The rounds that were played, which may be more or fewer than was asked for."""
    counts = [len(cell["rounds"]) for cell in report["cells"]]
    settles = [round_["settle"] for cell in report["cells"] for round_ in cell["rounds"]]
    settings = report["settings"]
    order = "all arms loaded at once" if settings["contended"] else "arms interleaved (ABBA)"
    rounds = f"{span(counts)} rounds of {settings['round']:g} s per cell, {order}"
    return f"{rounds}, {span(settles)} s to settle"


def span(values: Sequence[float]) -> str:
    """`20`, or `20 to 30`."""
    low, high = min(values, default=0), max(values, default=0)
    return f"{low:.3g}" if low == high else f"{low:.3g} to {high:.3g}"


def facts(values: Mapping[str, Any]) -> str:
    """`version 1, cores 2`; nested values and long ones are left to the JSON."""
    plain = {k: v for k, v in values.items() if isinstance(v, str | int | float) and v != "" and len(str(v)) <= 80}
    return ", ".join(f"{k.replace('_', ' ')} {v}" for k, v in plain.items()) or "not stated"

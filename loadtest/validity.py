"""When a run must not be believed, and what else its reader must know."""

from collections.abc import Mapping
from typing import Any


def invalid(report: Mapping[str, Any]) -> list[str]:
    """Why the run's numbers are not what they seem; empty when they are."""
    return [reason for cell in report["cells"] for reason in _errors(cell, report["settings"]["error_limit"])]


def _errors(cell: Mapping[str, Any], limit: float) -> list[str]:
    failed = sum(cell["errors"].values())
    if not cell["requests"]:
        return [f"{cell['arm']}, {cell['workload']}: no request was sent"]
    if failed / cell["requests"] <= limit:
        return []
    worst = next(iter(cell["errors"]))
    share = f"{failed} of {cell['requests']} requests failed ({failed / cell['requests']:.1%}, limit {limit:.1%})"
    return [f"{cell['arm']}, {cell['workload']}: {share}, most with: {worst}"]


def notes(report: Mapping[str, Any]) -> list[str]:
    """Not wrong, but a reader would want to know."""
    lines = [f"{e['name']} was left out: {e['reason']}." for e in report["excluded"]]
    if report["partial"]:
        lines.append("The run was stopped before its end: these are the rounds that were played until then.")
    if report["same_machine"]:
        lines.append("The load generator ran on the service's machine and took some of its CPU time.")
    changed = [(row["arm"], row["changed_answers"]) for row in report["accuracy"] if row["changed_answers"]]
    lines += [f"{arm} changed its answer to an image {times} times." for arm, times in changed]
    devices = {arm["name"]: arm["device"] for arm in report["arms"]}
    for arm in report["arms"]:
        if arm["baseline"] and devices[arm["baseline"]] != arm["device"]:
            other = f"{arm['baseline']} ({devices[arm['baseline']]})"
            lines.append(f"{arm['name']} ({arm['device']}) is held against {other}: device and precision both differ.")
    return lines

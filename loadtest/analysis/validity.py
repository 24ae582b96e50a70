"""When a run must not be believed, and what else its reader must know."""

from collections.abc import Mapping
from typing import Any

BUSY = 0.85
"""CPU seconds a second from which the generator, which has one core, is the bottleneck."""
LATE = 0.10
"""How late a tenth of the generator's wake-ups may be, as a share of the p50 it measures."""
LATE_SECONDS = 0.002
"""Lateness that any machine shows now and then, in seconds."""
FOREIGN = 0.01
"""Share of requests in the service's counters that this run did not send."""


def invalid(report: Mapping[str, Any]) -> list[str]:
    """Why the run's numbers are not what they seem; empty when they are."""
    limit = report["settings"]["error_limit"]
    reasons = [
        (cell, reason)
        for cell in report["cells"]
        for reason in (_errors(cell, limit), _busy(cell), _late(cell), _restarts(cell), _foreign(cell))
        if reason
    ]
    return [f"{cell['arm']}, {cell['workload']}: {reason}" for cell, reason in reasons]


def _errors(cell: Mapping[str, Any], limit: float) -> str | None:
    failed, total = sum(cell["errors"].values()), cell["requests"]
    if not total:
        return "no request was due in the counted time"
    if failed / total <= limit:
        return None
    worst = next(iter(cell["errors"]))
    return f"{failed} of {total} requests failed ({failed / total:.1%}, limit {limit:.1%}), most with: {worst}"


def _busy(cell: Mapping[str, Any]) -> str | None:
    used = max(_mean(cell, "client_cpu"), 0.0)
    if used <= BUSY:
        return None
    return f"the load generator was the bottleneck: it used {used:.0%} of the one core it can use"


def _late(cell: Mapping[str, Any]) -> str | None:
    late, p50 = _mean(cell, "late_p90"), cell["latency"]["p50"] or 0.0
    if late <= max(LATE_SECONDS, LATE * p50):
        return None
    return f"the load generator was late: a tenth of its wake-ups by more than {1000 * late:.1f} ms"


def _restarts(cell: Mapping[str, Any]) -> str | None:
    restarts = cell["server"]["restarts"]
    return f"the service restarted its worker {restarts} times" if restarts else None


def _foreign(cell: Mapping[str, Any]) -> str | None:
    server, sent = cell["server"], cell["server"]["requests_sent"]
    if server["requests"] > sent * (1 + FOREIGN):
        return f"the service counted {server['requests']} requests where this run sent {sent}: somebody else used it"
    if server["requests_of_others"] > sent * FOREIGN:
        count = server["requests_of_others"]
        return f"the service answered {count} requests to other variants meanwhile: somebody else used it"
    return None


def _mean(cell: Mapping[str, Any], key: str) -> float:
    values = [r[key] for r in cell["rounds"] if r[key] is not None]
    return sum(values) / len(values) if values else 0.0


def notes(report: Mapping[str, Any]) -> list[str]:
    """Not wrong, but a reader would want to know."""
    lines = [f"{e['name']} was left out: {e['reason']}." for e in report["excluded"]]
    if report["partial"]:
        lines.append("The run was stopped before its end: these are the rounds that were played until then.")
    if report["same_machine"]:
        lines.append("The load generator ran on the service's machine and took some of its CPU time.")
    changed = [(row["arm"], row["changed_answers"]) for row in report["accuracy"] if row["changed_answers"]]
    lines += [f"{arm} changed its answer to an image {times} times." for arm, times in changed]
    return lines + [note for cell in report["cells"] for note in _cell_notes(cell)] + _mixed_devices(report)


def _cell_notes(cell: Mapping[str, Any]) -> list[str]:
    name, lines = f"{cell['arm']}, {cell['workload']}", []
    if cell["saturated"]:
        rate = f"{cell['requests_per_second']:.1f} requests/s"
        lines.append(f"{name}: more than it can hold; it answered {rate}, and its latencies grow with the run.")
    starved = sum(r["starved"] for r in cell["rounds"])
    if cell["rate"] and starved:
        lines.append(f"{name}: {starved} requests were due while all users waited for answers (see --users).")
    if shadowed := cell["server"]["shadowed"]:
        lines.append(f"{name}: the service ran {shadowed} of its images through fp32, too (--shadow-share).")
    if not cell["server"]["requests"]:
        lines.append(f"{name}: the service's metrics do not count these requests, so its side is missing.")
    return lines


def _mixed_devices(report: Mapping[str, Any]) -> list[str]:
    devices = {arm["name"]: arm["device"] for arm in report["arms"]}
    pairs = [(arm, arm["baseline"]) for arm in report["arms"] if arm["baseline"]]
    return [
        f"{arm['name']} ({arm['device']}) is held against {other} ({devices[other]}): device and precision both differ."
        for arm, other in pairs
        if devices[other] != arm["device"]
    ]

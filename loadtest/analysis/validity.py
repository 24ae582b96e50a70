"""The reasons not to believe a run, and the facts that its reader must know."""

from collections.abc import Callable, Sequence

from loadtest.analysis.stability import ENOUGH_ROUNDS
from loadtest.client.classes import listed
from loadtest.plan import UNKNOWN
from loadtest.records import NEVER_SENT
from loadtest.report.cells import Cell
from loadtest.report.document import Report
from loadtest.targets import PREDICT

GENERATOR = "generator limited: "
"""The start of every reason that lies in the load generator and says nothing about the service."""
BUSY = 0.85
"""CPU seconds per second above which the load generator, which uses one core, counts as the bottleneck."""
LATE = 0.10
"""Lateness that is allowed, as a share of the p50: of half of the requests, and of a tenth of the wake-ups."""
LATE_SECONDS = 0.002
"""Lateness in seconds that is always allowed: any machine shows it now and then."""
UNTOLD = (
    "Asked over the Open Inference Protocol, which has no metrics: {}. Phases, batches and memory are unknown there, "
    "and the checks for restarted workers and for requests of others were skipped."
)
"""The note about services whose side is unknown."""
STARVED = 0.01
"""Share of the requests that may be due while no user is free: as many move a p99."""
FOREIGN = 0.01
"""Share of requests from others in the service's counters that is allowed."""


def invalid(cell: Cell, error_limit: float) -> list[str]:
    """Return why the cell's numbers must not be used; nothing if they hold."""
    return [reason for reason in (_errors(cell, error_limit), *(check(cell) for check in CHECKS)) if reason]


def _errors(cell: Cell, limit: float) -> str | None:
    answered = {kind: count for kind, count in cell.errors.items() if kind != NEVER_SENT}
    failed, total = sum(answered.values()), cell.requests
    if not total:
        return "no request was due in the counted time"
    if failed / total <= limit:
        return None
    worst = next(iter(answered))
    return f"{failed} of {total} requests failed ({failed / total:.1%}, limit {limit:.1%}), most with: {worst}"


def _busy(cell: Cell) -> str | None:
    used = _mean([r.client_cpu for r in cell.rounds])
    if used <= BUSY:
        return None
    return f"{GENERATOR}it used {used:.0%} of the one core it can use"


def _late(cell: Cell) -> str | None:
    late = _mean([r.late_p90 for r in cell.rounds if r.late_p90 is not None])
    if late <= max(LATE_SECONDS, LATE * (cell.latency.p50 or 0.0)):
        return None
    return f"{GENERATOR}it was late, a tenth of its wake-ups by more than {1000 * late:.1f} ms"


def _starved(cell: Cell) -> str | None:
    unsent, starved = cell.errors.get(NEVER_SENT, 0), sum(r.starved for r in cell.rounds)
    if cell.rate is None or not (unsent or starved > STARVED * cell.requests):
        return None
    many = f"{unsent:,} of {cell.requests:,} due requests were never sent, and " if unsent else ""
    return f"{GENERATOR}{many}{starved:,} were due while every user waited for an answer: give more --users"


def _sent_late(cell: Cell) -> str | None:
    late, p50 = cell.lateness.p50 or 0.0, cell.latency.p50
    if _starved(cell) or p50 is None or late <= LATE * p50:
        return None
    return (
        f"{GENERATOR}half of the requests were sent {1000 * late:.2f} ms late or later, "
        f"which is more than a tenth of the p50 ({1000 * p50:.2f} ms)"
    )


def _restarts(cell: Cell) -> str | None:
    restarts = cell.server.restarts
    return f"the service restarted its worker {restarts} times" if restarts else None


def _foreign(cell: Cell) -> str | None:
    counted, sent, others = cell.server.requests, cell.server.requests_sent, cell.server.requests_of_others
    if counted is None or others is None:
        return None
    if counted > sent * (1 + FOREIGN):
        return f"the service counted {counted} requests where this run sent {sent}: somebody else used it"
    if others > sent * FOREIGN:
        return f"the service answered {others} requests to other variants meanwhile: somebody else used it"
    return None


CHECKS: tuple[Callable[[Cell], str | None], ...] = (_busy, _late, _starved, _sent_late, _restarts, _foreign)


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values) if values else 0.0


def notes(report: Report) -> list[str]:
    """Return the facts that a reader must know though they make no number wrong."""
    lines = [f"{excluded.name} was left out: {excluded.reason}." for excluded in report.excluded]
    if report.partial:
        lines.append("The run was stopped before its end: these are the rounds that were played until then.")
    if report.workers:
        lines.append(f"{len(report.workers)} workers sent the load: {'; '.join(report.workers)}.")
    if report.same_machine:
        lines.append("The load generator ran on the service's machine and took some of its CPU time.")
    if untold := [server.label or server.url for server in report.servers if server.protocol != PREDICT]:
        lines.append(UNTOLD.format(", ".join(untold)))
    lines += [f"{arm.name} was sent {arm.asked}." for arm in report.arms if arm.asked]
    if report.images.unlabelled:
        lines.append(
            f"{report.images.unlabelled} of {report.images.count} images are of classes that the service does not know "
            f"and have no part in the accuracy. It has {listed(report.images.classes)}. "
            "--images names labelled images of your own."
        )
    few = [f"{cell.arm}, {cell.workload}" for cell in report.cells if len(cell.rounds) < ENOUGH_ROUNDS]
    if few:
        lines.append(f"Fewer than {ENOUGH_ROUNDS} rounds, too few to show a drift: {'; '.join(few)}.")
    changed = [row for row in report.accuracy if row.changed_answers]
    lines += [f"{row.arm} changed its answer to an image {row.changed_answers} times." for row in changed]
    return lines + [note for cell in report.cells for note in _cell_notes(cell)] + _mixed_devices(report)


def _cell_notes(cell: Cell) -> list[str]:
    name, lines = f"{cell.arm}, {cell.workload}", []
    if cell.saturated and not _starved(cell):
        rate = f"{cell.requests_per_second:.1f} requests/s"
        lines.append(f"{name}: more than it can hold; it answered {rate}, and its latencies grow with the run.")
    starved = sum(r.starved for r in cell.rounds)
    if cell.rate and starved and not _starved(cell):
        lines.append(f"{name}: {starved} requests were due while all users waited for answers (see --users).")
    if cell.server.front_is_limit:
        lines.append(
            f"{name}: the service's HTTP process was the limit, it used {cell.server.front_cpu:.0%} of the one core it "
            "can use. A faster variant answers no more requests there; more images a request, or replicas, do."
        )
    if cell.server.shadowed:
        lines.append(
            f"{name}: the service ran {cell.server.shadowed} of its images through fp32, too (--shadow-share)."
        )
    if cell.server.requests == 0:
        lines.append(f"{name}: the service's metrics do not count these requests, so its side is missing.")
    return lines


def _mixed_devices(report: Report) -> list[str]:
    devices = report.devices
    return [
        f"{arm.name} ({arm.device}) is held against {arm.baseline} ({devices[arm.baseline]}): "
        "device and precision both differ."
        for arm in report.arms
        if arm.baseline and devices[arm.baseline] != arm.device and UNKNOWN not in (arm.device, devices[arm.baseline])
    ]

"""The data of the charts: the arms of one device, and the numbers of a cell that the charts show."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from common.statistics import Interval
from loadtest.phases import PHASES
from loadtest.report.cells import Cell
from loadtest.report.document import Accuracy, Against, Report
from loadtest.report.svg import colours

OUTSIDE = "outside"
"""The part of a request outside of the service: the network and the client."""
LATE = "late"
"""The part before a request was sent, from when it was due: the lateness of the load generator."""


@dataclass(frozen=True)
class Group:
    """The arms of one device and their results."""

    arms: Sequence[str]
    cells: Sequence[Cell]
    """The cells in which at least one request was answered, without the INVALID ones."""
    everything: Sequence[Cell]
    """The cells in which at least one request was answered, the INVALID ones included."""
    answers: Sequence[Accuracy]
    colours: Mapping[str, str]

    @property
    def workloads(self) -> list[str]:
        """The workloads in the order of the run."""
        return list(dict.fromkeys(cell.workload for cell in self.cells))

    @property
    def timed(self) -> list[str]:
        """The workloads in the order of the run, those with INVALID cells only included."""
        return list(dict.fromkeys(cell.workload for cell in self.everything))

    @property
    def shares(self) -> dict[str, Interval]:
        """The accuracy of each arm for which there is one."""
        return {row.arm: row.accuracy for row in self.answers if row.accuracy}

    @property
    def differences(self) -> dict[str, tuple[Against, Interval]]:
        """The difference in accuracy to its baseline of each arm for which there is one."""
        rows = [(row.arm, row.against) for row in self.answers]
        return {arm: (held, held.difference) for arm, held in rows if held and held.difference}

    def of(self, workload: str) -> list[Cell]:
        """Return the cells of one workload."""
        return [cell for cell in self.cells if cell.workload == workload]

    def held(self, workload: str) -> list[Cell]:
        """Return the cells whose arm can hold the workload. The latencies of others only show how long rounds were."""
        return [cell for cell in self.of(workload) if not cell.saturated]


def groups(report: Report) -> dict[str, Group]:
    """Return the arms by device: charts never show two devices side by side."""
    shades = colours([arm.name for arm in report.arms])
    devices: dict[str, list[str]] = {}
    for arm in report.arms:
        devices.setdefault(arm.device, []).append(arm.name)
    return {device: _group(report, arms, shades) for device, arms in devices.items()}


def _group(report: Report, arms: Sequence[str], shades: Mapping[str, str]) -> Group:
    everything = [cell for cell in report.cells if cell.arm in arms and cell.latency.requests]
    valid = [cell for cell in everything if not cell.invalid]
    return Group(arms, valid, everything, [row for row in report.accuracy if row.arm in arms], shades)


def tail(cells: Sequence[Cell]) -> str:
    """Return the highest of p99, p95 and p50 that all cells have enough requests for, else `mean`."""
    names = (name for name in ("p99", "p95", "p50") if all(cell.latency.named(name) is not None for cell in cells))
    return next(names, "mean")


def parts(cell: Cell) -> dict[str, float]:
    """Return the mean milliseconds of a request by phase, outside of the service, and before it was sent."""
    seconds = {phase: cell.server.phase_seconds.get(phase) or 0.0 for phase in PHASES}
    if not any(seconds.values()):
        return {}
    outside = max(0.0, cell.server.outside_seconds or 0.0)
    return {
        name: 1000 * value for name, value in {LATE: cell.lateness.mean or 0.0, OUTSIDE: outside, **seconds}.items()
    }

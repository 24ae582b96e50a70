"""What the charts draw: the arms of one device, and the numbers of a cell that they show."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from loadtest.report.svg import colours


class Group(NamedTuple):
    """What ran on one device."""

    arms: list[str]
    cells: Sequence[Mapping[str, Any]]
    accuracy: Sequence[Mapping[str, Any]]
    colours: dict[str, str]

    def of(self, workload: str) -> list[Mapping[str, Any]]:
        """The cells of one workload."""
        return [cell for cell in self.cells if cell["workload"] == workload]

    def held(self, workload: str) -> list[Mapping[str, Any]]:
        """Those whose arm can hold the workload: the latencies of the others only say how long the run was."""
        return [cell for cell in self.of(workload) if not cell["saturated"]]

    @property
    def workloads(self) -> list[str]:
        """In the order in which they were asked for."""
        return list(dict.fromkeys(cell["workload"] for cell in self.cells))


def groups(report: Mapping[str, Any]) -> dict[str, Group]:
    """The arms by device: charts never put two devices side by side."""
    shades = colours([arm["name"] for arm in report["arms"]])
    devices: dict[str, list[str]] = {}
    for arm in report["arms"]:
        devices.setdefault(arm["device"], []).append(arm["name"])
    return {
        device: Group(
            arms,
            [c for c in report["cells"] if c["arm"] in arms and c["latency"]["requests"]],
            [row for row in report["accuracy"] if row["arm"] in arms and row["accuracy"]],
            shades,
        )
        for device, arms in devices.items()
    }


def tail(cells: Sequence[Mapping[str, Any]]) -> str:
    """The highest of p99, p95 and p50 that all cells have enough requests for; else the mean."""
    names = (name for name in ("p99", "p95", "p50") if all(cell["latency"][name] is not None for cell in cells))
    return next(names, "mean")


def parts(cell: Mapping[str, Any]) -> dict[str, float]:
    """Milliseconds by phase; `outside` the service, and the `rest` inside it that no phase covers."""
    server = cell["server"]
    found = {name: 1000 * value for name, value in server["phase_seconds"].items() if value}
    if not found or server["request_seconds"] is None:
        return {}
    rest = 1000 * server["request_seconds"] - sum(found.values())
    return {**found, "rest": max(0.0, rest), "outside": max(0.0, 1000 * (server["outside_seconds"] or 0.0))}


def weights(cell: Mapping[str, Any]) -> float:
    """Bytes of the model's parameters; 0 where the service does not say."""
    return float(cell["server"]["memory"]["model"].get("parameters", 0.0))

"""The table of results, for the terminal, Markdown and HTML."""

from collections.abc import Mapping

from tabulate import tabulate

from common.statistics import Interval
from loadtest.report.cells import Cell
from loadtest.report.document import Accuracy, Report

HEADERS = (
    "workload",
    "variant",
    "device",
    "images/s",
    "p50 ms",
    "p95 ms",
    "p99 ms",
    "p99.9 ms",
    "max ms",
    "inference ms",
    "queue ms",
    "batch",
    "batch memory MB",
    "process MB",
    "accuracy",
    "agreement",
    "errors",
)
NOTHING = "-"
BOUNDS = {"activation_peak": "≥ ", "cuda_graph": "≤ "}
"""The bound that a batch memory of this kind is: the CPU's is the least that was allocated at once, a CUDA graph's what
a batch padded to the graph's size needs."""


def rows(report: Report) -> list[list[str]]:
    """Return one row of text per cell. A dash stands for what was not measured, or not often enough to be stated."""
    devices = report.devices
    answers = {row.arm: row for row in report.accuracy}
    return [_row(cell, devices[cell.arm], answers[cell.arm]) for cell in report.cells]


def _row(cell: Cell, device: str, answers: Accuracy) -> list[str]:
    server, latency = cell.server, cell.latency
    return [
        cell.workload,
        cell.arm + (" (INVALID)" if cell.invalid else ""),
        device,
        number(cell.images_per_second, 1),
        *(number(seconds, 2, 1e3) for seconds in latency.tails),
        number(server.inference_seconds.mean, 2, 1e3),
        number(server.queue_seconds.mean, 2, 1e3),
        number(server.batch_size, 1),
        batch_memory(server.memory.batch),
        number(server.memory.process, 0, 1e-6),
        percent(answers.accuracy),
        percent(answers.against.agreement if answers.against else None),
        str(sum(cell.errors.values())),
    ]


def batch_memory(batch: Mapping[str, float]) -> str:
    """Return the batch memory in MB with its bound, such as `≥ 3.0`; a dash for 0, which means not measured."""
    kind, value = next(((kind, value) for kind, value in batch.items() if value), ("", None))
    return BOUNDS.get(kind, "") + number(value, 1, 1e-6)


def number(value: float | None, digits: int, scale: float = 1.0) -> str:
    """Return a number with its thousands separated, or a dash."""
    return NOTHING if value is None else f"{value * scale:,.{digits}f}"


def percent(share: Interval | None) -> str:
    """Return a share in percent, such as `95.31 %`, or a dash."""
    return NOTHING if share is None else f"{100 * share.estimate:.2f} %"


def text(report: Report, style: str) -> str:
    """Return the table in one of tabulate's styles."""
    align = ("left", "left", "left") + ("right",) * (len(HEADERS) - 3)
    return tabulate(rows(report), HEADERS, tablefmt=style, colalign=align, disable_numparse=True)

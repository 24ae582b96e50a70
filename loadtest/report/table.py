"""The table of results, for the terminal, Markdown and HTML."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from tabulate import tabulate

from common.statistics import Interval
from loadtest.analysis.words import estimate
from loadtest.report.cells import Cell
from loadtest.report.document import Accuracy, Report

NOTHING = "-"
BOUNDS = {"activation_peak": "≥ ", "cuda_graph": "≤ "}
"""The bound that a batch memory of this kind is: the CPU's is the least that was allocated at once, a CUDA graph's what
a batch padded to the graph's size needs."""


@dataclass(frozen=True)
class Table:
    """Headers and rows of text."""

    headers: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


@dataclass(frozen=True)
class Subject:
    """The parts of a report that one row shows."""

    cell: Cell
    device: str
    answers: Accuracy


@dataclass(frozen=True)
class Column:
    """One column: its header, and its text for a cell."""

    header: str
    text: Callable[[Subject], str]
    short: str = ""
    """Its header on a terminal of 80 columns; empty if it has no place there."""
    is_optional: bool = False
    """True if the column is left out where no cell has a number."""


def number(value: float | None, digits: int, scale: float = 1.0) -> str:
    """Return a number with its thousands separated, or a dash."""
    return NOTHING if value is None else f"{value * scale:,.{digits}f}"


def percent(share: Interval | None) -> str:
    """Return a share in percent, such as `95.31 %`, or a dash."""
    return NOTHING if share is None else f"{100 * share.estimate:.2f} %"


def batch_memory(batch: Mapping[str, float]) -> str:
    """Return the batch memory in MB with its bound, such as `≥ 3.0`; a dash for 0, which means not measured."""
    kind, value = next(((kind, value) for kind, value in batch.items() if value), ("", None))
    return BOUNDS.get(kind, "") + number(value, 1, 1e-6)


def _latency(name: str) -> Callable[[Subject], str]:
    return lambda row: number(row.cell.latency.named(name), 2, 1e3)


COLUMNS = (
    Column("workload", lambda row: row.cell.workload, "workload"),
    Column("variant", lambda row: row.cell.arm + (" (INVALID)" if row.cell.invalid else ""), "variant"),
    Column("device", lambda row: row.device),
    Column("images/s", lambda row: number(row.cell.images_per_second, 1), "images/s"),
    Column("p50 ms", _latency("p50"), "p50 ms"),
    Column("p95 ms", _latency("p95")),
    Column("p99 ms", _latency("p99"), "p99 ms"),
    Column("p99.9 ms", _latency("p999")),
    Column("max ms", _latency("max")),
    Column("inference ms", lambda row: number(row.cell.server.inference_seconds.mean, 2, 1e3)),
    Column("queue ms", lambda row: number(row.cell.server.queue_seconds.mean, 2, 1e3)),
    Column("batch", lambda row: number(row.cell.server.batch_size, 1)),
    Column("batch memory MB", lambda row: batch_memory(row.cell.server.memory.batch)),
    Column("process MB", lambda row: number(row.cell.server.memory.process, 0, 1e-6), "MB"),
    Column(
        "J / 1,000 images",
        lambda row: estimate(row.cell.energy.joules) if row.cell.energy else NOTHING,
        is_optional=True,
    ),
    Column(
        "of them idle",
        lambda row: number(row.cell.energy.idle_joules if row.cell.energy else None, 1),
        is_optional=True,
    ),
    Column("accuracy", lambda row: percent(row.answers.accuracy), "accuracy"),
    Column("agreement", lambda row: percent(row.answers.against.agreement if row.answers.against else None)),
    Column("errors", lambda row: str(sum(row.cell.errors.values()))),
)
WORDS = ("workload", "variant", "device")
"""The headers of the columns that hold words."""
TERMINAL = 80
"""Characters of a line on the terminal, whatever its width: longer lines are hard to read."""
GAP = 2
"""Characters between two columns."""
SHORTEST = 10
"""Characters of a variant's name on one line at least."""


def table(report: Report) -> Table:
    """Return one row per cell. A dash stands for what was not measured, or not often enough to be stated."""
    return _table(report, COLUMNS)


def narrow(report: Report) -> str:
    """Return the most important columns as text that fits a terminal; long names of variants are broken."""
    made = _table(report, [Column(one.short, one.text) for one in COLUMNS if one.short])
    lines = (made.headers, *made.rows)
    name = made.headers.index("variant")
    others = [max(map(len, texts)) for place, texts in enumerate(zip(*lines, strict=True)) if place != name]
    left = max(SHORTEST, TERMINAL - sum(others) - GAP * len(others))
    widths = [left if place == name else None for place in range(len(made.headers))]
    return tabulate(lines, tablefmt="plain", colalign=_align(made), disable_numparse=True, maxcolwidths=widths)


def text(report: Report, style: str) -> str:
    """Return the whole table in one of tabulate's styles."""
    made = table(report)
    return tabulate(made.rows, made.headers, tablefmt=style, colalign=_align(made), disable_numparse=True)


def _table(report: Report, columns: Sequence[Column]) -> Table:
    devices = report.devices
    answers = {row.arm: row for row in report.accuracy}
    subjects = [Subject(cell, devices[cell.arm], answers[cell.arm]) for cell in report.cells]
    filled = [(column, [column.text(one) for one in subjects]) for column in columns]
    kept = [(c.header, texts) for c, texts in filled if not c.is_optional or set(texts) != {NOTHING}]
    return Table(tuple(header for header, _ in kept), tuple(zip(*(texts for _, texts in kept), strict=True)))


def _align(made: Table) -> tuple[str, ...]:
    return tuple("left" if header in WORDS else "right" for header in made.headers)

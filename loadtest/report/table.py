"""The table of results, for the terminal and for Markdown."""

from collections.abc import Mapping
from typing import Any

from tabulate import tabulate

HEADERS = (
    "workload",
    "variant",
    "device",
    "images/s",
    "p50 ms",
    "p95 ms",
    "p99 ms",
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


def rows(report: Mapping[str, Any]) -> list[list[str]]:
    """One row of text per cell; a dash stands for what was not measured, or not often enough to be stated."""
    devices = {arm["name"]: arm["device"] for arm in report["arms"]}
    accuracy = {row["arm"]: row for row in report["accuracy"]}
    return [_row(cell, devices[cell["arm"]], accuracy[cell["arm"]]) for cell in report["cells"]]


def _row(cell: Mapping[str, Any], device: str, accuracy: Mapping[str, Any]) -> list[str]:
    server, latency = cell["server"], cell["latency"]
    memory = server["memory"]
    agreement = accuracy.get("against", {}).get("agreement")
    return [
        cell["workload"],
        cell["arm"],
        device,
        number(cell["images_per_second"], 1),
        *(number(latency[q], 2, 1e3) for q in ("p50", "p95", "p99")),
        number(server["inference_seconds"]["mean"], 2, 1e3),
        number(server["queue_seconds"]["mean"], 2, 1e3),
        number(server["batch_size"], 1),
        number(next(iter(memory["batch"].values()), None), 1, 1e-6),
        number(memory["now"].get("pss") or memory["now"].get("rss"), 0, 1e-6),
        percent(accuracy["accuracy"]),
        percent(agreement),
        str(sum(cell["errors"].values())),
    ]


def number(value: float | None, digits: int, scale: float = 1.0) -> str:
    """A number with thousands separated, or a dash."""
    return NOTHING if value is None else f"{value * scale:,.{digits}f}"


def percent(share: Mapping[str, float] | None) -> str:
    """`95.31 %`, or a dash."""
    return NOTHING if share is None else f"{100 * share['estimate']:.2f} %"


def text(report: Mapping[str, Any], style: str) -> str:
    """The table in one of tabulate's styles."""
    align = ("left", "left", "left") + ("right",) * (len(HEADERS) - 3)
    return tabulate(rows(report), HEADERS, tablefmt=style, colalign=align, disable_numparse=True)

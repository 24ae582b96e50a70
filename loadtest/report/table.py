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
BOUNDS = {"activation_peak": "≥ ", "cuda_graph": "≤ "}
"""On the CPU what is allocated at once at least; of a CUDA graph what a batch padded to its size needs."""


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
        batch_memory(memory["batch"]),
        number(memory["now"].get("pss") or memory["now"].get("rss"), 0, 1e-6),
        percent(accuracy["accuracy"]),
        percent(agreement),
        str(sum(cell["errors"].values())),
    ]


def batch_memory(batch: Mapping[str, float]) -> str:
    """`≥ 3.0`: which bound the number is depends on how the service measured it; 0 is what it could not measure."""
    kind, value = next(((kind, value) for kind, value in batch.items() if value), ("", None))
    return BOUNDS.get(kind, "") + number(value, 1, 1e-6)


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

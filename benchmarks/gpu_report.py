"""The results of `benchmarks.gpu_check` as one document: `python -m benchmarks.gpu_report --out DIR --results DIR`.

What is not in `--out` is named as missing, never filled in.
"""

import argparse
import json
import re
import statistics
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

GOAL_SPEED_UP, GOAL_SHARE_OF_RATE, GOAL_WALL, GOAL_SERVED, GOAL_AGREEMENT = 4.0, 0.40, 0.35e-3, 0.70, 0.999
MIB = 2**20
Document = dict[str, Any]


def table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    align = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, align, *rows))


class Engines:
    """`engines.json`: cells by variant, backend and batch size, beside what the chip can do."""

    def __init__(self, document: Document) -> None:
        self.machine, self.ceilings = document["machine"], document["ceilings"]
        self.cells = {(c["variant"], c["backend"], c["batch_size"]): c for c in document["cells"]}
        self.sizes = sorted({size for *_, size in self.cells if size})
        self.rows = list(dict.fromkeys((variant, backend) for variant, backend, _ in self.cells))

    def measured(self, variant: str, backend: str, size: int) -> Document | None:
        cell = self.cells.get((variant, backend, size))
        return cell if cell and not cell["error"] else None

    def best(self, variant: str, size: int) -> Document | None:
        """The fastest way to run a variant, the plain network left out."""
        found = [self.measured(name, way, size) for name, way in self.rows if name == variant and way != "eager"]
        return min((cell for cell in found if cell), key=lambda cell: float(cell["wall_seconds"]), default=None)

    def floor(self, cell: Document) -> float:
        from benchmarks.gpu_ceilings import Ceilings  # noqa: PLC0415 - imports torch

        return Ceilings(**self.ceilings).floor_seconds(cell["dtype"], cell["batch_size"])

    def by_size(self, title: str, show: Any) -> str:
        header = [title, *(str(size) for size in self.sizes)]
        rows = []
        for variant, backend in self.rows:
            cells = [self.measured(variant, backend, size) for size in self.sizes]
            rows.append([f"{variant}, {backend}", *(show(cell) if cell else "" for cell in cells)])
        return table(header, rows)

    def errors(self) -> list[str]:
        found = [(f"{v}, {b}, {size} images", cell["error"]) for (v, b, size), cell in self.cells.items()]
        return [f"- {where}: {error}" for where, error in found if error]


def goals(engines: Engines | None, served: list[Document] | None, evaluation: Document | None) -> str:
    """The goals and what was measured; `not measured` where the step did not run."""
    rows = [*_engine_goals(engines), _served_goal(served), *_evaluation_goals(evaluation)]
    return table(["goal", "measured", "met"], rows)


def _engine_goals(engines: Engines | None) -> list[list[str]]:
    speed_up, rate, wall = (None,) * 3
    if engines:
        fp16, one, eager = engines.best("fp16", 256), engines.best("fp16", 1), engines.measured("fp32", "eager", 256)
        wall = one and one["wall_seconds"]
        speed_up = fp16 and eager and eager["inference_seconds"] / fp16["inference_seconds"]
        rate = fp16 and engines.floor(fp16) / fp16["inference_seconds"]
    return [
        _row("fp16 at batch 256: at least 4 x eager FP32 (TF32 off)", speed_up, GOAL_SPEED_UP, "{:.1f} x"),
        _row("fp16 at batch 256: at least 40 % of the measured matrix rate", rate, GOAL_SHARE_OF_RATE, "{:.0%}"),
        _row("fp16 at batch 1: under 0.35 ms, copies included", wall, GOAL_WALL, "{:.6f} s", least=False),
    ]


def _served_goal(served: list[Document] | None) -> list[str]:
    row = next((row for row in served or () if row["variant"] == "fp16"), None)
    share = row and statistics.median(row["served"]) / statistics.median(row["bare"])
    return _row(
        "fp16 served, 256 raw images a request: at least 70 % of the engine alone", share, GOAL_SERVED, "{:.0%}"
    )


def _evaluation_goals(evaluation: Document | None) -> list[list[str]]:
    paired = evaluation and evaluation["variants"]["fp16"]["results"]["clean"]["paired"]
    agreement = paired and paired["agreement"]["estimate"]
    p = paired and paired["mcnemar_p"]
    return [
        _row("fp16 agrees with fp32 on at least 99.9 % of the test images", agreement, GOAL_AGREEMENT, "{:.3%}"),
        _row("no accuracy difference shown (McNemar's p at least 0.05)", p, 0.05, "p = {:.3f}"),
    ]


def _row(goal: str, value: Any, limit: float, form: str, least: bool = True) -> list[str]:
    if value is None:
        return [goal, "not measured", ""]
    return [goal, form.format(value), "yes" if (value >= limit if least else value < limit) else "no"]


def ceilings_table(engines: Engines) -> str:
    ceilings = engines.ceilings
    rates = [
        [f"matrix products, {name}", f"{rate / 1e12:,.1f} TFLOP/s"]
        for name, rate in ceilings["flop_per_second"].items()
    ]
    copies = [
        ["copy on the device, read + write", ceilings["copy_bytes_per_second"]],
        ["copy to the device, pinned", ceilings["to_device_bytes_per_second"]],
        ["copy from the device, pinned", ceilings["from_device_bytes_per_second"]],
    ]
    return table(["ceiling", "measured"], [*rates, *([name, f"{rate / 1e9:,.0f} GB/s"] for name, rate in copies)])


def engine_tables(engines: Engines) -> list[str]:
    return [
        engines.by_size("inference, ms", lambda c: f"{c['inference_seconds'] * 1e3:.3f}"),
        engines.by_size("with copies, ms", lambda c: f"{c['wall_seconds'] * 1e3:.3f}"),
        engines.by_size("images/s, with copies", lambda c: f"{c['batch_size'] / c['wall_seconds']:,.0f}"),
        engines.by_size("floor / inference", lambda c: f"{engines.floor(c) / c['inference_seconds']:.0%}"),
        engines.by_size("memory, MiB", lambda c: f"{c['memory_bytes'] / MIB:,.1f}" if c["memory_bytes"] else ""),
        *(["Could not be measured:", "\n".join(errors)] if (errors := engines.errors()) else []),
    ]


def served_table(served: list[Document]) -> str:
    rows = []
    for row in served:
        rate, bare = statistics.median(row["served"]), statistics.median(row["bare"])
        spread = f"{min(row['served']):,.0f} to {max(row['served']):,.0f}"
        rows.append([row["variant"], f"{rate:,.0f}", spread, f"{bare:,.0f}", f"{rate / bare:.0%}"])
    header = ["variant", "served, images/s", "rounds from, to", "engine alone, images/s", "share"]
    about = f"{served[0]['clients']} clients, {served[0]['images_a_request']} raw images a request; medians."
    return f"{about}\n\n{table(header, rows)}"


def tests_line(place: Path) -> str:
    """What pytest's JUnit file says."""
    suite = ET.parse(place).getroot().find("testsuite")  # noqa: S314 - written by our own pytest
    if suite is None:
        return "pytest wrote no results."
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    bad = [case.get("name", "") for case in suite.iter("testcase") if {"failure", "error"} & {e.tag for e in case}]
    names = f": {', '.join(bad)}" if bad else ""
    return f"{passed} passed, {len(bad)} failed{names}, {counts['skipped']} skipped."


def first_table(place: Path) -> str:
    """The first Markdown table of a document."""
    match = re.search(r"^\|.*\n\|[-:| ]+\n(?:\|.*\n)+", place.read_text(), re.MULTILINE)
    return match.group().strip() if match else "(no table)"


def read(place: Path) -> Any:
    return json.loads(place.read_text()) if place.exists() else None


def document(out: Path) -> tuple[str, str]:
    """The name of the GPU, and everything that `out` holds."""
    found, served, evaluation = (read(out / name) for name in ("engines.json", "served.json", EVALUATION))
    engines = Engines(found) if found else None
    machine = found["machine"] if found else {"gpu": "unknown GPU"}
    about = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    missing = "Not run, so nothing is known: this step left no result."
    parts = [
        f"# {machine['gpu']}",
        f"`make gpu-check`, {datetime.now(UTC).date().isoformat()}.",
        about,
        "## Goals",
        goals(engines, served, evaluation),
        "## What the chip can do",
        ceilings_table(engines) if engines else missing,
        "## Engines by batch size",
        *([ENGINES_NOTE, *engine_tables(engines)] if engines else [missing]),
        "## Answers on the 10,000 test images",
        first_table(out / EVALUATION.replace(".json", ".md")) if evaluation else missing,
        "## Served",
        served_table(served) if served else missing,
        "## Comparison by the load test",
        first_table(out / COMPARISON) if (out / COMPARISON).exists() else missing,
        "## GPU tests",
        tests_line(out / TESTS) if (out / TESTS).exists() else missing,
    ]
    return machine["gpu"], "\n\n".join(parts) + "\n"


EVALUATION, COMPARISON, TESTS = "evaluation/evaluation.json", "compare/report.md", "tests.xml"
ENGINES_NOTE = (
    "Medians of 20 to 200 batches of random pixels after the first tenth; CUDA events, the copies by the host's "
    "synchronised clock; engines in random order within a batch size. `eager` is the plain torchvision network, "
    "FP32, TF32 off. The floor is 1.11 GFLOP an image at the measured rate of matrix products, or weights, pixels and "
    "logits moved once at the measured rate of copies, whichever takes longer; Winograd's convolutions, which cuDNN "
    "may choose for FP32, multiply less and can pass it."
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_report", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="where the steps left their results")
    parser.add_argument("--results", type=Path, required=True, help="the folder to write NAME-OF-THE-GPU.md into")
    args = parser.parse_args(argv)
    name, text = document(args.out)
    place = args.results / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.md"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    print(text[text.index("## Goals") :].split("\n## What")[0])
    print(place)


if __name__ == "__main__":
    main()

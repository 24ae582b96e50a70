"""The results of `benchmarks.gpu_check` as one document: `python -m benchmarks.gpu_report --out DIR --results DIR`.

A step without results in `--out` is named as missing.
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
    """Return a Markdown table, all columns but the first aligned to the right."""
    align = ["---", *["---:"] * (len(header) - 1)]
    return "\n".join("| " + " | ".join(row) + " |" for row in (header, align, *rows))


class Engines:
    """The content of engines.json: cells by variant, backend and batch size, and the GPU's rates."""

    def __init__(self, document: Document) -> None:
        self.machine, self.ceilings = document["machine"], document["ceilings"]
        self.cells = {(c["variant"], c["backend"], c["batch_size"]): c for c in document["cells"]}
        self.sizes = sorted({size for *_, size in self.cells if size})
        self.rows = list(dict.fromkeys((variant, backend) for variant, backend, _ in self.cells))

    def measured(self, variant: str, backend: str, size: int) -> Document | None:
        """Return a cell, None if it is missing or failed."""
        cell = self.cells.get((variant, backend, size))
        return cell if cell and not cell["error"] else None

    def best(self, variant: str, size: int) -> Document | None:
        """Return the cell of a variant's fastest backend, without the baselines."""
        ways = [way for name, way in self.rows if name == variant and way not in {"eager", "autocast"}]
        found = [self.measured(variant, way, size) for way in ways]
        return min((cell for cell in found if cell), key=lambda cell: float(cell["wall_seconds"]), default=None)

    def floor(self, cell: Document) -> float:
        """Return the least seconds of the cell's batch, see `Ceilings.floor_seconds`."""
        from benchmarks.gpu_ceilings import Ceilings  # noqa: PLC0415 - imports torch

        return Ceilings(**self.ceilings).floor_seconds(cell["dtype"], cell["batch_size"])

    def by_size(self, title: str, show: Any) -> str:
        """Return a table with a row per engine, a column per batch size, and `show(cell)` in each cell."""
        header = [title, *(str(size) for size in self.sizes)]
        rows = []
        for variant, backend in self.rows:
            cells = [self.measured(variant, backend, size) for size in self.sizes]
            rows.append([f"{variant}, {backend}", *(show(cell) if cell else "" for cell in cells)])
        return table(header, rows)

    def errors(self) -> list[str]:
        """Return the errors of the cells that failed."""
        found = [(f"{v}, {b}, {size} images", cell["error"]) for (v, b, size), cell in self.cells.items()]
        return [f"- {where}: {error}" for where, error in found if error]


def goals(engines: Engines | None, served: list[Document] | None, evaluation: Document | None) -> str:
    """Return the goals beside the measurements; `not measured` if the step did not run."""
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
    """Return the GPU's rates."""
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
    """Return the tables of the engines, and their errors."""
    return [
        engines.by_size("inference, ms", lambda c: f"{c['inference_seconds'] * 1e3:.3f}"),
        engines.by_size("with copies, ms", lambda c: f"{c['wall_seconds'] * 1e3:.3f}"),
        engines.by_size("images/s, with copies", lambda c: f"{c['batch_size'] / c['wall_seconds']:,.0f}"),
        engines.by_size("floor / inference", lambda c: f"{engines.floor(c) / c['inference_seconds']:.0%}"),
        engines.by_size("memory, MiB", lambda c: f"{c['memory_bytes'] / MIB:,.1f}" if c["memory_bytes"] else ""),
        *(["Could not be measured:", "\n".join(errors)] if (errors := engines.errors()) else []),
    ]


def served_table(served: list[Document]) -> str:
    """Return the served rates beside those of the engines alone."""
    rows = []
    for row in served:
        rate, bare = statistics.median(row["served"]), statistics.median(row["bare"])
        spread = f"{min(row['served']):,.0f} to {max(row['served']):,.0f}"
        rows.append([row["variant"], f"{rate:,.0f}", spread, f"{bare:,.0f}", f"{rate / bare:.0%}"])
    header = ["variant", "served, images/s", "rounds from, to", "engine alone, images/s", "share"]
    about = f"{served[0]['clients']} clients, {served[0]['images_a_request']} raw images a request; medians."
    return f"{about}\n\n{table(header, rows)}"


def tests_line(place: Path) -> str:
    """Return the counts in pytest's JUnit file."""
    suite = ET.parse(place).getroot().find("testsuite")  # noqa: S314 - our own pytest wrote it
    if suite is None:
        return "pytest wrote no results."
    counts = {name: int(suite.get(name, 0)) for name in ("tests", "failures", "errors", "skipped")}
    passed = counts["tests"] - counts["failures"] - counts["errors"] - counts["skipped"]
    bad = [case.get("name", "") for case in suite.iter("testcase") if {"failure", "error"} & {e.tag for e in case}]
    names = f": {', '.join(bad)}" if bad else ""
    return f"{passed} passed, {len(bad)} failed{names}, {counts['skipped']} skipped."


def first_table(place: Path) -> str:
    """Return the first Markdown table of a document."""
    match = re.search(r"^\|.*\n\|[-:| ]+\n(?:\|.*\n)+", place.read_text(), re.MULTILINE)
    return match.group().strip() if match else "(no table)"


def comparison(place: Path) -> str:
    """Return what a report of the load test says: verdicts, numbers, limits, images and rounds, without the machine."""
    said, _, conditions = place.read_text().partition("\n## What it ran on")
    kept = (line for line in conditions.splitlines() if line.startswith(("- images: ", "- rounds: ")))
    return "\n".join([said.partition("\n")[2].replace("\n## ", "\n### ").strip(), *kept])


def read(place: Path) -> Any:
    """Return the JSON of a file, None if the file is missing."""
    return json.loads(place.read_text()) if place.exists() else None


def document(out: Path) -> tuple[str, str]:
    """Return the name of the GPU, and the document of all results in `out`."""
    found, served, evaluation = (read(out / name) for name in ("engines.json", "served.json", EVALUATION))
    engines = Engines(found) if found else None
    machine = found["machine"] if found else {"gpu": "unknown GPU"}
    about = "\n".join(f"- {name}: {value}" for name, value in machine.items())
    missing = "Not run: this step left no result."
    parts = [
        f"# {machine['gpu']}",
        f"`make gpu-check`, {datetime.now(UTC).date().isoformat()}.",
        about,
        "## Goals",
        goals(engines, served, evaluation),
        "## Rates of the GPU",
        ceilings_table(engines) if engines else missing,
        "## Engines by batch size",
        *([ENGINES_NOTE, *engine_tables(engines)] if engines else [missing]),
        "## Answers on the 10,000 test images",
        first_table(out / EVALUATION.replace(".json", ".md")) if evaluation else missing,
        "## Served",
        served_table(served) if served else missing,
        "## Comparison by the load test",
        comparison(out / COMPARISON) if (out / COMPARISON).exists() else missing,
        "## GPU tests",
        tests_line(out / TESTS) if (out / TESTS).exists() else missing,
    ]
    return machine["gpu"], "\n\n".join(parts) + "\n"


EVALUATION, COMPARISON, TESTS = "evaluation/evaluation.json", "compare/report.md", "tests.xml"
ENGINES_NOTE = (
    "Medians of 20 to 200 batches of random pixels, without the first tenth. Inference is timed by CUDA events, the "
    "whole call by the host's synchronised clock; engines run in random order within a batch size. `eager` is the "
    "plain torchvision network, FP32, TF32 off; `autocast` the same network, channels-last, its convolutions in FP16 "
    "by torch's autocast. The floor is the longer of two times: 1.11 GFLOP per image at the measured rate of matrix "
    "products; weights, pixels and logits moved once at the measured rate of copies. cuDNN may choose Winograd's "
    "convolutions for FP32, which multiply less and can be faster than the floor."
)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_report", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="folder with the results of the steps")
    parser.add_argument("--results", type=Path, required=True, help="folder for NAME-OF-THE-GPU.md")
    args = parser.parse_args(argv)
    name, text = document(args.out)
    place = args.results / f"{re.sub(r'[^a-z0-9]+', '-', name.lower()).strip('-')}.md"
    place.parent.mkdir(parents=True, exist_ok=True)
    place.write_text(text)
    print(text[text.index("## Goals") :].split("\n## Rates")[0])
    print(place)


if __name__ == "__main__":
    main()

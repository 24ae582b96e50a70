"""This service beside MLServer, compared by the load test over the Open Inference Protocol.

Both serve the bundled weights with the same INT8 engine of this project and take the same PNG images, so that only the
servers differ. `make .venv-mlserver/.installed` installs MLServer, and the load test's report shows how such a
comparison looks. The results are printed and written to --out.
"""

import argparse
import base64
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from importlib.metadata import distributions
from pathlib import Path

from PIL import Image
from tabulate import tabulate

from benchmarks.starting import Body, Pixels, started
from benchmarks.startup_servers import INT8, MLSERVER, mlserver_with, service
from benchmarks.wrk import ROOT
from common import machine
from loadtest.analysis.differences import label
from loadtest.analysis.verdicts import accuracy_verdict
from loadtest.analysis.words import times
from loadtest.report.cells import Cell
from loadtest.report.document import Report
from loadtest.report.schema import read

IMAGES = {"name": "images", "datatype": "BYTES", "shape": [-1]}
LOGITS = {"name": "logits", "datatype": "FP32", "shape": [-1, 10]}
MODEL = {"implementation": "benchmarks.mlserver_runtime.Pictures", "inputs": [IMAGES], "outputs": [LOGITS]}
THEIRS, OURS_JSON, OURS_BINARY, OURS = "mlserver", "ours-json", "ours-binary", "ours-predict"
SENT = {
    THEIRS: "JSON, images in base64",
    OURS_JSON: "JSON, images in base64",
    OURS_BINARY: "bytes after the JSON",
    OURS: "`POST /predict/int8`, the file as it is",
}
"""How each arm is asked."""
PACKAGES = ("openvino", "litserve", "fastapi", "uvicorn", "locust")


def encoded(pixels: Pixels) -> Body:
    """Return images as PNG in an inference request."""
    texts = []
    for image in pixels:
        file = io.BytesIO()
        Image.fromarray(image.transpose(1, 2, 0)).save(file, "PNG")
        texts.append(base64.b64encode(file.getvalue()).decode())
    tensor = {**IMAGES, "shape": [len(texts)], "parameters": {"content_type": "base64"}, "data": texts}
    return Body(json.dumps({"inputs": [tensor]}).encode(), "application/json")


def compared(theirs: str, ours: str, flags: Sequence[str], out: Path) -> Report:
    """Run the load test against both servers and return its report. The arms take turns, round by round."""
    urls = {THEIRS: theirs, OURS_JSON: ours, OURS_BINARY: ours, OURS: ours}
    models = {THEIRS: "int8", OURS_JSON: "resnet18-int8", OURS_BINARY: "resnet18-int8"}
    command = [sys.executable, "-m", "loadtest", "--out", str(out), "--variants", "int8", *flags]
    for name, url in urls.items():
        command += ["--url", f"{name}={url}"]
    for name, model in models.items():
        command += ["--protocol", f"{name}=v2", "--model", f"{name}={model}", "--input", f"{name}=images:BYTES:-1"]
    command += ["--encoding", f"{OURS_JSON}=json"]
    done = subprocess.run(command, check=False, cwd=ROOT)
    if done.returncode not in (0, 3):
        raise SystemExit(f"the load test ended with {done.returncode}")
    return read(out / "report.json")


HEAD = """# Beside MLServer

Written by `python -m benchmarks.against_mlserver`. {conditions}

Both servers run the bundled weights with this project's INT8 engine, so only the servers differ. Each has its defaults.
The load test sent the same PNG images to both, one a request, in rounds of one second that take turns:

| arm | how it is asked |
|---|---|
"""
COLUMNS = ("workload", "arm", "images/s", "p50, ms", "p99, ms", "images/s against MLServer", "p50 against MLServer")


def document(report: Report, conditions: str) -> str:
    """Return the results in Markdown."""
    asked = "".join(f"| {name} | {words} |\n" for name, words in SENT.items())
    table = tabulate([_row(report, cell) for cell in report.cells], COLUMNS, tablefmt="github", disable_numparse=True)
    ends = ["Brackets hold 95 % intervals, paired by round. The p50 is shorter where its ratio is below 1.", ""]
    ends += [f"- {row.arm}: {accuracy_verdict(row.against)}" for row in report.accuracy if row.against]
    ends += [f"- INVALID: {reason}" for reason in report.reasons]
    return HEAD.format(conditions=conditions) + asked + f"\n{table}\n\n" + "\n".join(ends) + "\n"


def _row(report: Report, cell: Cell) -> tuple[str, ...]:
    ratios = next((c.ratios for c in report.comparisons if (c.arm, c.workload) == (cell.arm, cell.workload)), None)
    name = label(cell.arm) + " (INVALID)" * bool(cell.invalid)
    tails = [f"{1000 * seconds:.2f}" if seconds else "-" for seconds in (cell.latency.p50, cell.latency.p99)]
    against = [times(r) if r else "-" for r in (ratios.images_per_second, ratios.p50)] if ratios else ["1", "1"]
    return cell.workload, name, f"{cell.images_per_second:.0f}", *tails, *against


def versions() -> str:
    """Return the versions of the packages in MLServer's environment."""
    places = [str(place) for place in MLSERVER.parent.glob("lib/python*/site-packages")]
    found = {one.name.lower(): one.version for one in distributions(path=places)}
    return ", ".join(f"{name} {found[name]}" for name in ("mlserver", "openvino", "fastapi"))


def main(argv: Sequence[str] | None = None) -> None:
    """Start both servers, compare them and write the results."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.against_mlserver", description=__doc__)
    parser.add_argument("--concurrency", default="1,8", help="numbers of users (%(default)s)")
    parser.add_argument("--duration", default="16", help="seconds per arm and number of users (%(default)s)")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "results" / "mlserver.md", help="(%(default)s)")
    args = parser.parse_args(argv)
    flags = ["--concurrency", args.concurrency, "--duration", args.duration, "--max-duration", args.duration]
    with tempfile.TemporaryDirectory() as name, ExitStack() as stack:
        folder = Path(name)
        servers = (mlserver_with(THEIRS, MODEL, encoded, folder / "mlserver"), service(OURS, INT8))
        running = [stack.enter_context(started(one, folder / f"{one.name}.log"))[0] for one in servers]
        theirs, ours = (f"http://127.0.0.1:{one.port}" for one in running)
        report = compared(theirs, ours, flags, ROOT / "reports" / "mlserver")
    described = machine.describe(*PACKAGES) | {"date": f"{datetime.now(UTC):%Y-%m-%d}"}
    described["seconds per arm and workload"] = args.duration
    described["load average at the end"] = f"{report.client.load_average[0]:.1f}"
    conditions = ", ".join(f"{key} {value}" for key, value in described.items())
    text = document(report, f"{conditions}. MLServer's environment: {versions()}.")
    print(text)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)


if __name__ == "__main__":
    main()

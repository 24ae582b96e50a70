"""Quantize the same weights with outside toolboxes, for docs/quantization.md: `python -m benchmarks.toolboxes`.

NNCF, ONNX Runtime, torchao and torch's own modes, each with its defaults, calibrated on the bundled sample of 300
images (`benchmarks.peers`, `benchmarks.runtimes`), answer the test images. Each runs in a process of its own; one that
fails is noted with its reason. `make study` adds the results to its page. A second run continues.
"""

import argparse
import importlib
import io
import subprocess
import sys
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.rows import ROWS
from common import machine
from models import checkpoint, cifar10, files
from models.engines import openvino
from models.engines.network import fold
from models.evaluation import statistics
from models.study import results, running
from models.study.found import Toolbox
from models.study.results import Outcome

Logits = NDArray[np.float32]
BATCH = 50
"""PT2E is packaged for one batch size."""
FX = "FX static int8"
TOOLBOXES = {
    "torch dynamic (linear only)": "dynamic int8 (linear only)",
    "torch FX, oneDNN": FX,
    "torch FX, x86": FX,
    "torch FX, FBGEMM": FX,
    "torch FX, QNNPACK": FX,
    "torchao PT2E, AOTInductor": "PT2E int8, AOTInductor",
    "ONNX Runtime static": "ONNX Runtime int8",
    "NNCF on OpenVINO": "OpenVINO int8",
}
"""The row of `benchmarks.rows` that builds each toolbox's network."""
ENGINES = {"torch FX, x86": "x86", "torch FX, FBGEMM": "fbgemm", "torch FX, QNNPACK": "qnnpack"}
"""torch's engines besides the one of the row. `x86` chooses between FBGEMM and oneDNN."""


def place(name: str, folder: Path) -> Path:
    """Return the place of a toolbox's result."""
    return folder / "toolboxes" / f"{''.join(c if c.isalnum() else '-' for c in name)}.json"


def identity(args: argparse.Namespace) -> str:
    """Return a hash of the checkpoint and the number of images: a result of others is measured again."""
    return results.identity_of(checkpoint.inspect(files.default_path()).sha256, args.images)


def exact(images: cifar10.Images, args: argparse.Namespace) -> Logits:
    """Return the FP32 logits of the images. The first toolbox computes them, the others read them."""
    kept = args.out / "toolboxes" / "work" / f"{identity(args)}.npy"
    if not kept.exists():
        network = fold(*checkpoint.load())
        run = openvino.floating(network, machine.available_cores()).forward
        content = io.BytesIO()
        np.save(content, running.answers(run, images, "fp32"))
        files.write(kept, content.getvalue())
    logits: Logits = np.load(kept)
    return logits


def answer(name: str, args: argparse.Namespace) -> Outcome:
    """Build one toolbox's network and return how good its answers are."""
    threads, work = machine.available_cores(), args.out / "toolboxes" / "work" / identity(args)
    work.mkdir(parents=True, exist_ok=True)
    images, labels = cifar10.read(args.data, "test")
    images, labels = images[: args.images], labels[: args.images]
    module, _, function = ROWS[TOOLBOXES[name]].builder.partition(":")
    build = getattr(importlib.import_module(module), function)
    run = (build(threads, work, ENGINES[name]) if name in ENGINES else build(threads, work))(BATCH)
    logits = np.concatenate([run(np.ascontiguousarray(images[i : i + BATCH])) for i in range(0, len(images), BATCH)])
    score = statistics.score(logits, labels, cifar10.CLASSES)
    return Outcome(
        name, identity(args), score, statistics.compare(logits, exact(images, args), labels, "fp32"), 0, "", 0.0,
        f"{machine.name()} ({machine.isa()}), {threads} threads", datetime.now(UTC).isoformat(timespec="seconds"),
    )  # fmt: skip


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.toolboxes", description=__doc__)
    add = parser.add_argument
    add("--data", type=Path, default=files.data_root(), help="holds cifar-10-batches-bin/ (%(default)s)")
    add("--out", type=Path, default=Path("runs/study"), help="the study's folder (%(default)s)")
    add("--images", type=int, default=10_000, help="test images; a multiple of 50 (%(default)s)")
    add("--only", choices=list(TOOLBOXES), help="run one toolbox in this process")
    args = parser.parse_args()
    if args.only:
        results.save(place(args.only, args.out), Toolbox(args.only, "", answer(args.only, args)))
        return
    for name in TOOLBOXES:
        known = results.load(place(name, args.out), Toolbox)
        if known and known.outcome and known.outcome.identity == identity(args):
            continue
        print(name, file=sys.stderr, flush=True)
        command = [sys.executable, "-m", "benchmarks.toolboxes", "--only", name, "--data", str(args.data)]
        command += ["--out", str(args.out), "--images", str(args.images)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            reason = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
            results.save(place(name, args.out), Toolbox(name, reason, None))


if __name__ == "__main__":
    main()

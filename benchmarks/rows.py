"""The rows of benchmarks.engines, and what runs one of them in a process of its own.

`python -m benchmarks.rows ROW THREADS FOLDER` reads one JSON command a line and answers it with one line. Each row
imports its own toolbox, when it is asked for.
"""

import importlib
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from models import cifar10, reference
from models.card import read_card
from models.loading import load
from models.variants import thread_environment

WARM_UP = 3
"""Untimed calls after a batch size was prepared."""
OURS = "this project"
FLOOR = "floor"

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Row:
    """One way to run the network."""

    name: str
    dtype: str
    """`float32` or `int8`."""
    family: str
    """The toolbox: torch's rows are compared with each other, too."""
    builder: str
    """`module:function` that takes threads and a folder; of this project, `variant:backend`."""

    @property
    def environment(self) -> dict[str, str]:
        """What binds OpenMP's threads, as the service does; not where other thread pools would inherit the binding."""
        if self.family == OURS:
            return thread_environment(self.builder.partition(":")[2])
        return thread_environment("onednn") if self.family in {"torch", FLOOR} else {}


ROWS = {
    row.name: row
    for row in (
        Row("eager fp32", "float32", "torch", "benchmarks.peers:plain"),
        Row("eager fp32, folded, channels-last", "float32", "torch", "benchmarks.peers:folded"),
        Row("Inductor fp32", "float32", "torch", "benchmarks.peers:inductor"),
        Row("torch.jit fp32", "float32", "torch", "benchmarks.peers:jit"),
        Row("ONNX Runtime fp32", "float32", "onnxruntime", "benchmarks.runtimes:onnxruntime_fp32"),
        Row("OpenVINO fp32", "float32", "openvino", "benchmarks.runtimes:openvino_fp32"),
        Row("this project, fp32-cpu, onednn", "float32", OURS, "fp32-cpu:onednn"),
        Row("this project, fp32-cpu", "float32", OURS, "fp32-cpu:openvino"),
        Row("dynamic int8 (linear only)", "int8", "torch", "benchmarks.peers:dynamic"),
        Row("FX static int8", "int8", "torch", "benchmarks.peers:fx"),
        Row("PT2E int8, AOTInductor", "int8", "torch", "benchmarks.peers:pt2e"),
        Row("ONNX Runtime int8", "int8", "onnxruntime", "benchmarks.runtimes:onnxruntime_int8"),
        Row("OpenVINO int8", "int8", "openvino", "benchmarks.runtimes:openvino_int8"),
        Row("this project, int8, onednn", "int8", OURS, "int8:onednn"),
        Row("this project, int8", "int8", OURS, "int8:openvino"),
        Row("floor fp32", "float32", FLOOR, "float32"),
        Row("floor int8", "int8", FLOOR, "int8"),
    )
}


class Engine:
    """A row at work: one method per command."""

    def __init__(self, row: Row, threads: int, folder: Path) -> None:
        self._for_batch = _build(row, threads, folder)

    def prepare(self, size: int) -> int:
        """Get ready for a batch size; gives the resident bytes of the process."""
        images, _ = cifar10.sample()
        self._pixels = np.resize(images, (size, *images.shape[1:]))
        self._run = self._for_batch(size)
        for _ in range(WARM_UP):
            self._run(self._pixels)
        return resident_bytes()

    def time(self, calls: int) -> list[float]:
        """Seconds of each call, after one that brings the caches back."""
        seconds = []
        for _ in range(calls + 1):
            began = time.perf_counter()
            self._run(self._pixels)
            seconds.append(time.perf_counter() - began)
        return seconds[1:]

    def score(self) -> dict[str, float]:
        """Logit SQNR in dB and top-1 agreement with the stored FP32 logits of the bundled sample."""
        images, _ = cifar10.sample()
        expected, size = reference.reference(None, read_card().sha256), len(self._pixels)
        padded = np.resize(images, (-(-len(images) // size) * size, *images.shape[1:]))
        logits = np.concatenate([self._run(padded[i : i + size]) for i in range(0, len(padded), size)])[: len(images)]
        return {"sqnr": sqnr(expected, logits), "agreement": float((logits.argmax(1) == expected.argmax(1)).mean())}


class Floor:
    """The same commands, of the best rate: calls take what the network would at it."""

    def __init__(self, row: Row, threads: int, _folder: Path) -> None:
        from benchmarks import floor

        self._measure = floor.seconds_per_image(row.dtype, threads)

    def prepare(self, size: int) -> int:
        self._size = size
        self._measure()
        return resident_bytes()

    def time(self, calls: int) -> list[float]:
        return [self._measure() * self._size for _ in range(calls)]

    def score(self) -> dict[str, float]:
        return {}


def _build(row: Row, threads: int, folder: Path) -> Callable[[int], Run]:
    if row.family == OURS:
        name, _, backend = row.builder.partition(":")
        engine = load(name, device="cpu", threads=threads, cpu_backend=backend)
        return lambda _size: lambda pixels: engine.run(pixels).logits
    module, _, function = row.builder.partition(":")
    built: Callable[[int], Run] = getattr(importlib.import_module(module), function)(threads, folder)
    return built


def sqnr(exact: NDArray[np.float32], found: NDArray[np.float32]) -> float:
    return float(10 * np.log10((exact**2).sum() / ((exact - found) ** 2).sum()))


def resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def main(name: str, threads: int, folder: Path) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # what libraries print must not get between the answers
    row, engine = ROWS[name], None
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            engine = engine or (Floor if row.family == FLOOR else Engine)(row, threads, folder)
            result: dict[str, Any] = {"value": getattr(engine, command)(*arguments)}
        except Exception as error:  # noqa: BLE001 - whatever a toolbox raises is the reason why its row is missing
            result = {"reason": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
        print(json.dumps(result), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))

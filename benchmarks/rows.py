"""The rows of benchmarks.engines, and the process that runs one of them.

`python -m benchmarks.rows ROW THREADS FOLDER` reads one JSON command per line and answers each with one line. A row's
toolbox is imported at its first command.
"""

import functools
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

from models import checkpoint, cifar10, files, preprocess, reference
from models.card import read_card
from models.loading import load
from models.logits import agreement, sqnr
from models.preprocess import SIDE
from models.topology import Input
from models.variants import VariantUnavailable

SAMPLE, FEWEST = 300, 16
"""Images of the sample of 32 pixels, and the fewest of larger ones."""
WARM_UP = 3
"""Untimed calls after a batch size was prepared."""
OURS = "this project"
TORCH = "torch"
FLOOR = "floor"
BOUND = {"OMP_PROC_BIND": "true"}
"""Binds each OpenMP thread to a core: on a busy machine unbound threads fell to a twentieth of their speed."""

Run = Callable[[NDArray[np.uint8]], NDArray[np.float32]]


@dataclass(frozen=True)
class Row:
    """One way to run the network."""

    name: str
    dtype: str
    """`float32`, `bfloat16`, `float16` or `int8`."""
    family: str
    """The toolbox; this project's rows are compared with the best of each."""
    builder: str
    """`module:function` that takes threads and a folder. In a row of this project, a variant; in a floor, a dtype."""

    @property
    def environment(self) -> dict[str, str]:
        """Return the variables of the row's process. Other toolboxes have other threads, which would inherit BOUND."""
        return BOUND if self.family in {TORCH, FLOOR} else {}


ROWS = {
    row.name: row
    for row in (
        Row("eager fp32", "float32", TORCH, "benchmarks.peers:plain"),
        Row("eager fp32, folded, channels-last", "float32", TORCH, "benchmarks.peers:folded"),
        Row("Inductor fp32", "float32", TORCH, "benchmarks.peers:inductor"),
        Row("torch.jit fp32", "float32", TORCH, "benchmarks.peers:jit"),
        Row("ONNX Runtime fp32", "float32", "onnxruntime", "benchmarks.runtimes:onnxruntime_fp32"),
        Row("OpenVINO fp32", "float32", "openvino", "benchmarks.runtimes:openvino_fp32"),
        Row("this project, fp32-cpu", "float32", OURS, "fp32-cpu"),
        Row("this project, bf16-cpu", "bfloat16", OURS, "bf16-cpu"),
        Row("this project, fp16-cpu", "float16", OURS, "fp16-cpu"),
        Row("dynamic int8 (linear only)", "int8", TORCH, "benchmarks.peers:dynamic"),
        Row("oneDNN operators int8", "int8", TORCH, "benchmarks.onednn:int8"),
        Row("FX static int8", "int8", TORCH, "benchmarks.peers:fx"),
        Row("PT2E int8, AOTInductor", "int8", TORCH, "benchmarks.peers:pt2e"),
        Row("ONNX Runtime int8", "int8", "onnxruntime", "benchmarks.runtimes:onnxruntime_int8"),
        Row("OpenVINO int8", "int8", "openvino", "benchmarks.runtimes:openvino_int8"),
        Row("this project, int8", "int8", OURS, "int8"),
        Row("floor fp32", "float32", FLOOR, "float32"),
        Row("floor int8", "int8", FLOOR, "int8"),
    )
}


class Toolbox:
    """A row at work, one method per command."""

    def __init__(self, row: Row, threads: int, folder: Path) -> None:
        self._for_batch = _build(row, threads, folder)

    def prepare(self, size: int) -> int:
        """Get ready for a batch size; return the resident bytes of the process."""
        images = sample()
        self._pixels = np.resize(images, (size, *images.shape[1:]))
        self._run = self._for_batch(size)
        for _ in range(WARM_UP):
            self._run(self._pixels)
        return resident_bytes()

    def time(self, calls: int) -> list[float]:
        """Return the seconds of each call, after an untimed one that fills the caches."""
        seconds = []
        for _ in range(calls + 1):
            began = time.perf_counter()
            self._run(self._pixels)
            seconds.append(time.perf_counter() - began)
        return seconds[1:]

    def score(self) -> dict[str, float | None]:
        """Return logit SQNR in dB and top-1 agreement with the reference logits on the sample."""
        images, size = sample(), len(self._pixels)
        expected = _expected()[: len(images)]
        padded = np.resize(images, (-(-len(images) // size) * size, *images.shape[1:]))
        logits = np.concatenate([self._run(padded[i : i + size]) for i in range(0, len(padded), size)])[: len(images)]
        return {"sqnr": sqnr(expected, logits), "agreement": agreement(expected, logits)}


def sample() -> NDArray[np.uint8]:
    """Return the bundled images as the network of the checkpoint takes them; fewer if they are large."""
    inputs = load_input()
    count = max(FEWEST, round(SAMPLE * min(1, (SIDE / inputs.side) ** 2)))
    return preprocess.resized(cifar10.sample()[0][:count], inputs.side, inputs.resize)


@functools.cache
def load_input() -> Input:
    """Return the images that the network of the checkpoint takes."""
    card = checkpoint.inspect(files.default_path())
    return Input(card.input_size or SIDE, card.mean or Input.mean, card.std or Input.std, card.resize)


def _expected() -> NDArray[np.float32]:
    """Return the reference logits of the sample: the stored ones, or those of this project's FP32."""
    if files.default_path() == files.BUNDLED:
        return reference.reference(None, read_card().sha256)
    return load("fp32-cpu", device="cpu").run(sample()).logits


class Floor:
    """The same commands for a floor: a call's time is the network's time at the best rate."""

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
        engine = load(row.builder, device="cpu", threads=threads)
        return lambda _size: lambda pixels: engine.run(pixels).logits
    module, _, function = row.builder.partition(":")
    built: Callable[[int], Run] = getattr(importlib.import_module(module), function)(threads, folder)
    return built


def resident_bytes() -> int:
    import psutil

    return int(psutil.Process().memory_info().rss)


def main(name: str, threads: int, folder: Path) -> None:
    answers = os.fdopen(os.dup(1), "w", buffering=1)
    os.dup2(2, 1)  # libraries print, too, and must not disturb the answers
    row, toolbox = ROWS[name], None
    for line in sys.stdin:
        command, *arguments = json.loads(line)
        try:
            toolbox = toolbox or (Floor if row.family == FLOOR else Toolbox)(row, threads, folder)
            result: dict[str, Any] = {"value": getattr(toolbox, command)(*arguments)}
        except VariantUnavailable as unavailable:
            result = {"reason": f"unavailable: {unavailable}"}
        except Exception as error:  # noqa: BLE001 - any error of a toolbox is the reason why its row is missing
            result = {"reason": f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"}
        print(json.dumps(result), file=answers)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))

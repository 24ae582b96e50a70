"""Every way to run the network on a GPU, by batch size, side by side: `python -m benchmarks.gpu_engines --out FILE`.

The engines run in random order within each batch size, device-synchronised. FILE gets every cell as JSON, and beside
them the plain torchvision network in eager FP32 and the GPU's measured rates; `benchmarks.gpu_report` makes the tables.
"""

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from benchmarks import gpu_ceilings
from common import machine
from models import checkpoint
from models.card import read_card
from models.engines import graphs
from models.engines.base import Engine, EngineError
from models.engines.device import gpus
from models.engines.tensors import mean_and_scale
from models.loading import load
from models.measure_torch import CudaClock
from models.resnet import resnet18
from models.topology import Input
from models.variants import GPU_BACKENDS, VARIANTS, VariantUnavailable

FEW_SIZES = (256, 32, 1)
"""Batch sizes of the baseline, and of the backend that compiles each size anew."""
SIZES = (*FEW_SIZES, 1024, 512, 128, 64, 16, 8, 4, 2)
"""Batch sizes, the most important first, because a run may end early."""
ROWS = (
    *(("fp32", backend) for backend in GPU_BACKENDS),
    *(("fp16", backend) for backend in GPU_BACKENDS),
    ("fp32-tf32", "cudnn"),
    ("bf16", "cudnn"),
    ("bf16", "cudnn-fused"),
)
"""Variants and backends."""
BASELINES = (("fp32", "eager"), ("fp16", "autocast"))
"""What people start from, torchvision's network without a graph, BatchNorm not folded, TF32 off: as it is, and
channels-last under torch's autocast, which keeps FP32 weights and runs the convolutions in FP16."""
LEAST_RUNS, MOST_RUNS, SECONDS = 20, 200, 0.5
"""Runs of each engine and batch size: as many as the seconds allow, within these limits."""
INPUTS = 8
"""Different batches of pixels that take turns."""


@dataclass(frozen=True)
class Cell:
    """One engine at one batch size: medians over `runs` batches after a warm-up, or an error."""

    variant: str
    backend: str
    dtype: str
    batch_size: int
    runs: int = 0
    inference_seconds: float = 0.0
    fastest_seconds: float = 0.0
    slowest_seconds: float = 0.0
    """Of the inference, as `fastest_seconds`."""
    wall_seconds: float = 0.0
    """The whole call, with the copies to and from the device."""
    memory_bytes: int = 0
    memory_kind: str = ""
    error: str = ""


class Eager:
    """A baseline: torchvision's network, called on normalised float images."""

    def __init__(self, device: torch.device, *, autocast: bool) -> None:
        state, _ = checkpoint.load()
        self._net = resnet18().eval()
        self._net.load_state_dict({name: torch.from_numpy(array) for name, array in state.items()})
        self._autocast, self._layout = autocast, torch.channels_last if autocast else torch.contiguous_format
        self._net.to(device, memory_format=self._layout)
        self._mean, self._scale = mean_and_scale(Input(), device)
        self._device, self._clock = device, CudaClock()

    @torch.inference_mode()
    def run(self, pixels: NDArray[np.uint8]) -> tuple[float, float]:
        """Run one batch; return the seconds of the inference, normalisation included, and of the whole call."""
        graphs.set_convolutions(tf32=False, search=False)
        self._clock.start()
        on_device = torch.from_numpy(pixels).to(self._device)
        self._clock.border()
        inputs = ((on_device.float() - self._mean) * self._scale).contiguous(memory_format=self._layout)
        with torch.autocast("cuda", torch.float16, enabled=self._autocast):
            logits = self._net(inputs)
        self._clock.border()
        logits.cpu()
        cost = self._clock.stop()
        return cost.inference, cost.wall


def measure(device: torch.device) -> Iterator[Cell]:
    """Yield every cell; an engine that cannot run gives a cell with its error."""
    engines: dict[tuple[str, str], Engine] = {}
    for name, backend in ROWS:
        try:
            engines[name, backend] = load(name, device=str(device), gpu_backend=backend)
        except VariantUnavailable as reason:
            yield Cell(name, backend, "", 0, error=str(reason))
    baselines = {key: Eager(device, autocast=key[1] == "autocast") for key in BASELINES}
    for size in SIZES:
        shape, generator = (INPUTS, size, 3, 32, 32), np.random.default_rng(size)
        inputs = generator.integers(0, 256, shape, np.uint8)
        order = [key for key in engines if size in FEW_SIZES or key[1] != "inductor"]
        random.Random(size).shuffle(order)
        for name, backend in order:
            yield _cell(engines[name, backend], backend, inputs)
        if size in FEW_SIZES:
            for (name, backend), net in baselines.items():
                cell = Cell(name, backend, VARIANTS[name].dtype, size)
                yield _summary(cell, [(*net.run(x), 0) for x in _turns(inputs)], "")


def _cell(engine: Engine, backend: str, inputs: NDArray[np.uint8]) -> Cell:
    size, row = inputs.shape[1], engine.variant
    empty = Cell(row.name, backend, row.dtype, size)
    try:
        engine.warm_up([size])
        done = [engine.run(pixels) for pixels in _turns(inputs)]
    except EngineError as error:
        return Cell(row.name, backend, row.dtype, size, error=str(error).partition("\n")[0])
    return _summary(empty, [(e.inference_seconds, e.wall_seconds, e.memory_bytes) for e in done], done[-1].memory_kind)


def _turns(inputs: NDArray[np.uint8]) -> Iterator[NDArray[np.uint8]]:
    """Yield the inputs of as many runs as SECONDS allow."""
    began, number = time.monotonic(), 0
    while number < LEAST_RUNS or (number < MOST_RUNS and time.monotonic() - began < SECONDS):
        yield inputs[number % len(inputs)]
        number += 1


def _summary(cell: Cell, runs: list[tuple[float, float, int]], kind: str) -> Cell:
    """Return the cell with medians over the runs, without the first tenth of them."""
    kept = runs[len(runs) // 10 :]
    inference = [run[0] for run in kept]
    measured = {
        "runs": len(kept),
        "inference_seconds": statistics.median(inference),
        "fastest_seconds": min(inference),
        "slowest_seconds": max(inference),
        "wall_seconds": statistics.median(run[1] for run in kept),
        "memory_bytes": max(run[2] for run in kept),
        "memory_kind": kind,
    }
    return Cell(**(asdict(cell) | measured))


def describe_machine(device: torch.device) -> dict[str, Any]:
    """Return the conditions of the numbers."""
    gpu = gpus()[device.index]
    return machine.describe("torch") | {
        "gpu": gpu.name,
        "isa": gpu.isa,
        "tensor_cores": gpu.has_tensor_cores,
        "memory_bytes": gpu.memory_bytes,
        "cuda": torch.version.cuda,
        "cudnn": torch.backends.cudnn.version(),
        "checkpoint_sha256": read_card().sha256,
    }


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.gpu_engines", description=__doc__)
    parser.add_argument("--out", type=Path, required=True, help="the JSON file to write")
    args = parser.parse_args(argv)
    if not gpus():
        sys.exit("error: this machine has no CUDA GPU that torch can use")
    device = torch.device(gpus()[0].device)
    ceilings = gpu_ceilings.measure(device)
    torch.cuda.empty_cache()
    cells = []
    for cell in measure(device):
        cells.append(asdict(cell))
        print(json.dumps(cells[-1]), flush=True)
        document = {"machine": describe_machine(device), "ceilings": asdict(ceilings), "cells": cells}
        args.out.write_text(json.dumps(document, indent=1) + "\n")


if __name__ == "__main__":
    main()

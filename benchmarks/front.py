"""How many requests one HTTP process can answer: `python -m benchmarks.front`. Needs two cores, and `wrk`.

The HTTP process of the service has one core to itself. The worker, whose engine is the no-op of benchmarks.noop, the
decoders and wrk share the other cores. The output is the document docs/results/front.md.
"""

import argparse
import io
import os
import sys
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import psutil
from PIL import Image
from tabulate import tabulate

from benchmarks.hop import bare
from benchmarks.switched import cpu_seconds
from benchmarks.wrk import (
    PACKAGES,
    Contender,
    Round,
    free_port,
    measure,
    median,
    png,
    process,
    require_wrk,
    wait_until_it_answers,
)
from common import machine

CLIENTS = 32
RAW = 16
"""Images of a raw request. As many as 32 requests hold may wait for a worker."""
BATCH_SIZE = 16
"""The batch size at which the engines of this machine are measured."""
CORES = (2, 4, 8, 16, 32)
TITLE = "# One HTTP process at its limit\n"
INTRODUCTION = """
`python -m benchmarks.front` writes this document. The HTTP process has one core to itself. The worker, whose engine
does nothing, the decoders and wrk share the other cores. 32 clients send the same request again and again. A cell is
the median of the rounds.

*Busy* is the processor time of the HTTP process over the time that passed. *At most* is what a whole core of the HTTP
process can answer: one second over its processor time per request. Light bodies are decoded in the HTTP process,
others in the decoders ([decision 7](../decisions/0007-decoders-are-processes.md)).
"""
BOUNDS = """
## One replica for how many cores

A PNG as above takes processor time in the HTTP process, in the worker and in the engine. `n` cores answer at most
`n / (HTTP process + worker + engine)` images a second, and one HTTP process at most `1 / HTTP process`. The table has
the lower of both, and what sets it. The numbers are computed: they assume that worker and engine use every further
core as well as the first. The last column is the number of cores at which both bounds are equal. With more cores,
another replica adds speed.

The machine with VNNI is that of [the engines](engines-amd-epyc-avx512-bf16.md) and of [serving](serving-cpu.md), whose
no-op rate stands for its HTTP process. Served on two of its cores, with the client on them too, int8 answered 540
requests a second and fp32 185.
"""


@dataclass(frozen=True)
class Cost:
    """Seconds of processor time that a request of one image takes in each part of the service."""

    front: float
    """In the HTTP process."""
    engine: float
    behind: float = 0.0
    """In the worker and the decoders, without the engine."""

    def bound(self, cores: int) -> tuple[float, str]:
        """Return how many requests a second `cores` can answer, and what limits them."""
        together = cores / (self.front + self.behind + self.engine)
        return (together, "cores") if together < 1 / self.front else (1 / self.front, "HTTP")

    @property
    def crossing(self) -> float:
        """The number of cores from which on the HTTP process is the limit."""
        return (self.front + self.behind + self.engine) / self.front


PUBLISHED = {
    "int8, AMD EPYC with VNNI": Cost(front=1 / 2558, engine=74.54e-3 / 32),
    "fp32, AMD EPYC with VNNI": Cost(front=1 / 2558, engine=287.89e-3 / 32),
}
"""The costs that other documents have of one machine: docs/results/serving-cpu.md has the no-op's rate at 32 clients,
docs/results/engines-amd-epyc-avx512-bf16.md the time of a batch of 32 on one thread."""


def jpeg() -> bytes:
    """Return a JPEG of 640x480 with the smooth noise of a photograph, about 70 KB."""
    rng = np.random.default_rng(0)
    small = Image.fromarray(rng.integers(0, 256, (60, 80, 3), np.uint8))
    smooth = np.asarray(small.resize((640, 480), Image.Resampling.BICUBIC), np.float64)
    buffer = io.BytesIO()
    Image.fromarray((smooth + rng.normal(0, 7, smooth.shape)).clip(0, 255).astype(np.uint8)).save(buffer, "JPEG")
    return buffer.getvalue()


def requests(url: str) -> list[Contender]:
    """Return the kinds of request that are measured."""
    photo, raw = jpeg(), bytes(RAW * 3 * 32 * 32)
    return [
        Contender(f"PNG of 32x32, {len(png()) / 1e3:.1f} KB", url, png(), "image/png"),
        Contender(f"JPEG of 640x480, {len(photo) / 1e3:.0f} KB", url, photo, "image/jpeg"),
        Contender(f"{RAW} raw images, {len(raw) / 1e3:.0f} KB", url, raw, "application/octet-stream", RAW),
    ]


def move(pid: int, cores: set[int]) -> None:
    """Bind every thread of a process to the cores."""
    for thread in psutil.Process(pid).threads():
        with suppress(ProcessLookupError):
            os.sched_setaffinity(thread.id, cores)


def measured(contender: Contender, pid: int, seconds: int, folder: Path) -> Round:
    """Return one round, with the processor time per request in place of that per image."""
    before = cpu_seconds(pid)
    one = measure(contender, CLIENTS, seconds, folder)
    front, behind = (cpu_seconds(pid) - before) / (one.rate / contender.images * seconds)
    return one._replace(http_cpu=1e6 * front, cpu=1e6 * (front + behind))


def rounds_of(contenders: Sequence[Contender], pid: int, rounds: int, seconds: int, folder: Path) -> list[Round]:
    """Return the median of the rounds of each contender. They take turns, after a round that does not count."""
    turns = [[measured(one, pid, seconds, folder) for one in contenders] for _ in range(rounds + 1)][1:]
    return [median(of_one) for of_one in zip(*turns, strict=True)]


def front_table(contenders: Sequence[Contender], results: Sequence[Round]) -> str:
    """Return the table of requests."""
    headers = (
        f"{CLIENTS} clients", "requests/s", "p50 ms", "HTTP process busy", "HTTP process, us a request",
        "worker and decoders, us a request", "at most, requests/s",
    )  # fmt: skip
    rows = []
    for contender, one in zip(contenders, results, strict=True):
        rate = one.rate / contender.images
        behind = one.cpu - one.http_cpu
        numbers = (f"{rate:,.0f}", f"{one.p50:.1f}", f"{rate * one.http_cpu / 1e6:.0%}", f"{one.http_cpu:.0f}")
        rows.append((contender.name, *numbers, f"{behind:.0f}", f"{1e6 / one.http_cpu:,.0f}"))
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def bounds_table(costs: dict[str, Cost]) -> str:
    """Return the table of cores."""
    headers = (
        "engine and machine", "HTTP, ms", "engine, ms", *(f"{n} cores" for n in CORES), "HTTP is the limit from",
    )  # fmt: skip
    rows = []
    for name, cost in costs.items():
        bounds = ("{:,.0f}/s, {}".format(*cost.bound(cores)) for cores in CORES)
        milliseconds = (f"{1e3 * cost.front:.2f}", f"{1e3 * cost.engine:.2f}")
        rows.append((name, *milliseconds, *bounds, f"{cost.crossing:.1f} cores"))
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def costs_here(png_result: Round, core: int, seconds: float) -> dict[str, Cost]:
    """Return the costs on this machine; the engines run on one core."""
    front, behind = png_result.http_cpu / 1e6, (png_result.cpu - png_result.http_cpu) / 1e6
    with machine.bound_to({core}):
        engines = {name: 1 / bare(name, BATCH_SIZE, seconds) for name in ("int8", "fp32")}
    return {f"{name}, this machine": Cost(front, engine, behind) for name, engine in engines.items()}


def conditions(rounds: int, seconds: int) -> str:
    """Return the head of the document."""
    facts = ", ".join(f"{name} {value}" for name, value in machine.describe(*PACKAGES).items())
    when = f"{datetime.now(tz=UTC):%Y-%m-%d}"
    return f"{TITLE}\nConditions: {when}, {facts}; {rounds} rounds of {seconds} s.\n{INTRODUCTION}"


def main(argv: list[str] | None = None) -> None:
    """Print the document."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.front", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (%(default)s)")
    parser.add_argument("--seconds", type=int, default=4, help="length of each round (%(default)s)")
    args = parser.parse_args(argv)
    require_wrk()
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        sys.exit("error: two cores are needed, one for the HTTP process and one for wrk")
    print(conditions(args.rounds, args.seconds), flush=True)
    port = free_port()
    contenders = requests(f"http://127.0.0.1:{port}/predict/fp32")
    with (
        machine.bound_to(set(others)),
        tempfile.TemporaryDirectory() as folder,
        process("benchmarks.noop", "service", str(port)) as server,
    ):
        wait_until_it_answers(contenders[0])
        move(server.pid, {first})
        results = rounds_of(contenders, server.pid, args.rounds, args.seconds, Path(folder))
    print(front_table(contenders, results), flush=True)
    costs = PUBLISHED | costs_here(results[0], first, args.seconds)
    print(BOUNDS, bounds_table(costs), sep="\n", flush=True)


if __name__ == "__main__":
    main()

"""Which settings to serve a variant with on this machine: `python -m benchmarks.tuning workers`. Needs `wrk`.

One service per row of a study, all up at once, measured in turns under the same loads; medians of rounds.
"""

import argparse
import json
import shutil
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.hop import (
    PACKAGES,
    SETTLED,
    Contender,
    free_port,
    interleave,
    png,
    process,
    wait_until_it_answers,
)
from common import machine

CLIENTS = (1, 8, 32)
RAW_CLIENTS = (4,)
"""Of 32 raw images a request."""


def batches() -> list[tuple[str, ...]]:
    """The largest batch, in images, and how long a batch that is not full waits, in seconds."""
    settings = ((1, 0), (4, 0), (8, 0), (16, 0), (32, 0), (32, 0.002))
    return [("--max-batch-size", str(size), "--batch-timeout", str(timeout)) for size, timeout in settings]


def workers(cores: int | None = None) -> list[tuple[str, ...]]:
    """The ways to divide the cores: workers, and the threads of each."""
    cores = cores or machine.available_cores()
    powers = [2**n for n in range(cores.bit_length())]
    return [("--workers", str(count), "--threads", str(cores // count)) for count in powers]


STUDIES = {"batches": batches, "workers": workers}


def table(variant: str, study: Sequence[tuple[str, ...]], rounds: int, seconds: int, folder: Path) -> str:
    """Images a second and p50 in milliseconds: one line per setting, one column per load."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 3, 32, 32), np.uint8).tobytes()
    loads = (
        ("PNG", png(), "image/png", 1, CLIENTS, seconds),
        ("32 raw", pixels, "application/octet-stream", 32, RAW_CLIENTS, max(seconds, SETTLED // 2)),
    )
    cells: dict[tuple[str, int], tuple[float, float]] = {}
    with ExitStack() as stack:
        ports = {flags: free_port() for flags in study}
        for flags, port in ports.items():
            common = ("--port", str(port), "--variants", variant, "--log-level", "warning")
            stack.enter_context(process("service", *common, *flags))
        for label, body, content_type, images, clients, length in loads:
            contenders = [
                Contender(f"{label} {flags}", f"http://127.0.0.1:{port}/predict/{variant}", body, content_type, images)
                for flags, port in ports.items()
            ]
            for contender in contenders:
                wait_until_it_answers(contender)
            cells |= interleave(contenders, clients, rounds, length, folder)
    columns = [(label, count) for label, *_, clients, _ in loads for count in clients]
    lines = [
        f"| {variant} | " + " | ".join(f"{label}, {count} clients" for label, count in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for flags in study:
        measured = (cells[f"{label} {flags}", count] for label, count in columns)
        values = " | ".join(f"{rate:,.0f} ({p50:.1f} ms)" for rate, p50 in measured)
        lines.append(f"| `{' '.join(flags)}` | {values} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description=__doc__)
    parser.add_argument("study", choices=STUDIES)
    parser.add_argument("--variants", default="int8", help="one table each (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of each round (%(default)s)")
    args = parser.parse_args(argv)
    if shutil.which("wrk") is None:
        sys.exit("error: wrk is missing; on Debian and Ubuntu: apt install wrk")
    print(json.dumps(machine.describe(*PACKAGES) | {"rounds": args.rounds, "seconds": args.seconds}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for variant in args.variants.split(","):
            print(table(variant, STUDIES[args.study](), args.rounds, args.seconds, Path(folder)), flush=True)


if __name__ == "__main__":
    main()

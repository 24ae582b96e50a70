"""Compare settings for a variant on this machine: `python -m benchmarks.tuning workers`. Needs `wrk`.

Each row of a study has its own service. All run at once, and take turns under the same loads. Numbers are medians of
rounds.
"""

import argparse
import json
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.wrk import (
    CLIENTS,
    PACKAGES,
    SETTLED,
    Contender,
    Rounds,
    free_port,
    interleave,
    median,
    png,
    process,
    require_wrk,
    wait_until_it_answers,
)
from common import machine

RAW_CLIENTS = (4,)
"""The numbers of clients that send 32 raw images a request."""


def batches() -> list[tuple[str, ...]]:
    """Return flags for several largest batches, in images, and waits of a batch that is not full, in seconds."""
    settings = ((1, 0), (4, 0), (8, 0), (16, 0), (32, 0), (32, 0.002))
    return [("--max-batch-size", str(size), "--batch-timeout", str(timeout)) for size, timeout in settings]


def workers(cores: int | None = None) -> list[tuple[str, ...]]:
    """Return flags for the ways to divide the cores: workers, and the threads of each."""
    cores = cores or machine.available_cores()
    powers = [2**n for n in range(cores.bit_length())]
    return [("--workers", str(count), "--threads", str(cores // count)) for count in powers]


STUDIES = {"batches": batches, "workers": workers}


def table(variant: str, study: Sequence[tuple[str, ...]], rounds: int, seconds: int, folder: Path) -> str:
    """Return images a second and p50 in milliseconds: one line per setting, one column per load."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 3, 32, 32), np.uint8).tobytes()
    loads = (
        ("PNG", png(), "image/png", 1, CLIENTS, seconds),
        ("32 raw", pixels, "application/octet-stream", 32, RAW_CLIENTS, max(seconds, SETTLED // 2)),
    )
    measured: Rounds = {}
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
            measured |= interleave(contenders, clients, rounds, length, folder)
    columns = [(label, count) for label, *_, clients, _ in loads for count in clients]
    lines = [
        f"| {variant} | " + " | ".join(f"{label}, {count} clients" for label, count in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for flags in study:
        medians = (median(measured[f"{label} {flags}", count]) for label, count in columns)
        values = " | ".join(f"{m.rate:,.0f} ({m.p50:.1f} ms)" for m in medians)
        lines.append(f"| `{' '.join(flags)}` | {values} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Print the machine, then one Markdown table per variant."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tuning", description=__doc__)
    parser.add_argument("study", choices=STUDIES, help="the settings to vary")
    parser.add_argument("--variants", default="int8", help="variants, comma-separated, one table each (%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="number of rounds (%(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="length of each round (%(default)s)")
    args = parser.parse_args(argv)
    require_wrk()
    print(json.dumps(machine.describe(*PACKAGES) | {"rounds": args.rounds, "seconds": args.seconds}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for variant in args.variants.split(","):
            print(table(variant, STUDIES[args.study](), args.rounds, args.seconds, Path(folder)), flush=True)


if __name__ == "__main__":
    main()

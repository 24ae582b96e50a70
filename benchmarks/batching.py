"""Which batch cap and wait to serve a variant with: `python -m benchmarks.batching --variant int8`. Needs `wrk`.

One service per row of CONFIGURATIONS, all up at once, measured in turns under the same loads; medians of rounds.
"""

import argparse
import json
import shutil
import sys
import tempfile
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.hop import Contender, free_port, interleave, machine, png, process, wait_until_it_answers

CONFIGURATIONS = ((1, 0.0), (4, 0.0), (8, 0.0), (16, 0.0), (32, 0.0), (32, 0.002))
"""`max_batch_size` in images, `batch_timeout` in seconds."""
CLIENTS = (1, 8, 32)


def table(variant: str, rounds: int, seconds: int, folder: Path) -> str:
    """Images a second and p50 in milliseconds: one row per configuration, one column per load."""
    pixels = np.random.default_rng(0).integers(0, 256, (32, 3, 32, 32), np.uint8).tobytes()
    loads = (("PNG", png(), "image/png", 1, CLIENTS), ("32 raw", pixels, "application/octet-stream", 32, (4,)))
    cells: dict[tuple[str, int], tuple[float, float]] = {}
    with ExitStack() as stack:
        ports = {configuration: free_port() for configuration in CONFIGURATIONS}
        for (size, timeout), port in ports.items():
            flags = ("--max-batch-size", str(size), "--batch-timeout", str(timeout), "--log-level", "warning")
            stack.enter_context(process("service", "--port", str(port), "--variants", variant, *flags))
        for label, body, content_type, images, clients in loads:
            contenders = [
                Contender(
                    f"{label} {configuration}", f"http://127.0.0.1:{port}/predict/{variant}", body, content_type, images
                )
                for configuration, port in ports.items()
            ]
            for contender in contenders:
                wait_until_it_answers(contender)
            cells |= interleave(contenders, clients, rounds, seconds, folder)
    columns = [(label, count) for label, *_, clients in loads for count in clients]
    lines = [
        f"| {variant}: cap, wait | " + " | ".join(f"{label}, {count} clients" for label, count in columns) + " |",
        "|---" * (len(columns) + 1) + "|",
    ]
    for configuration in CONFIGURATIONS:
        size, timeout = configuration
        measured = (cells[f"{label} {configuration}", count] for label, count in columns)
        values = " | ".join(f"{rate:,.0f} ({p50:.1f} ms)" for rate, p50 in measured)
        lines.append(f"| {size}, {timeout * 1000:g} ms | {values} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.batching", description=__doc__)
    parser.add_argument("--variant", default="int8", help="(%(default)s)")
    parser.add_argument("--rounds", type=int, default=3, help="(%(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of each round (%(default)s)")
    args = parser.parse_args(argv)
    if shutil.which("wrk") is None:
        sys.exit("error: wrk is missing; on Debian and Ubuntu: apt install wrk")
    print(json.dumps(machine() | {"rounds": args.rounds, "seconds": args.seconds}))
    with tempfile.TemporaryDirectory() as folder:
        print(table(args.variant, args.rounds, args.seconds, Path(folder)))


if __name__ == "__main__":
    main()

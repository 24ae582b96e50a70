"""What the way through the service costs: `python -m benchmarks.hop`. Needs `wrk` (Debian: apt install wrk).

1. No-op model: this service, LitServe as shipped, and FastAPI in one process, with the same 2.4 KB PNG, 1, 8 and 32
   clients. All contenders run at once and take turns in short rounds: each is idle while another is measured.
2. The fp32 and int8 variants served, beside the bare engine in a loop at the batch size that the service formed. Each
   row takes turns with its own bare engine, row after row: compare the shares, not the rows. And the latency of a lone
   client, beside the forward pass.
3. Only with `--against DIR`: this checkout's service beside that of another checkout, no-op and int8, in turns; no-op
   also with many raw images a request. Both run with this Python and its packages.

Numbers are medians of rounds.
"""

import argparse
import http.client
import json
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from benchmarks.wrk import (
    CLIENTS,
    PACKAGES,
    ROOT,
    SETTLED,
    Contender,
    free_port,
    interleave,
    measure,
    median,
    png,
    process,
    ratio,
    require_wrk,
    wait_until_it_answers,
    written,
)
from common import machine

NOOP = {
    # kind of benchmarks.noop: path, name in the table
    "service": ("/predict/fp32", "this service"),
    "litserve": ("/predict", "LitServe as shipped"),
    "fastapi": ("/predict", "FastAPI in one process"),
}


def noop_table(rounds: int, seconds: int, folder: Path) -> str:
    """Return the table of the three servers of benchmarks.noop."""
    with ExitStack() as stack:
        contenders = []
        for kind, (path, name) in NOOP.items():
            port = free_port()
            stack.enter_context(process("benchmarks.noop", kind, str(port)))
            contenders.append(Contender(name, f"http://127.0.0.1:{port}{path}", png(), "image/png"))
        for contender in contenders:
            wait_until_it_answers(contender)
        measured = interleave(contenders, CLIENTS, rounds, seconds, folder)
    lines = [
        "| no-op, requests/s (p50 ms) | " + " | ".join(f"{n} client{'s' * (n > 1)}" for n in CLIENTS) + " |",
        "|---|---|---|---|",
    ]
    for contender in contenders:
        medians = (median(measured[contender.name, count]) for count in CLIENTS)
        lines.append(f"| {contender.name} | " + " | ".join(f"{m.rate:,.0f} ({m.p50:.2f})" for m in medians) + " |")
    ours, theirs = contenders[0].name, contenders[1].name
    ratios = (ratio(measured[ours, count], measured[theirs, count]).estimate for count in CLIENTS)
    return "\n".join([*lines, "| this service / LitServe | " + " | ".join(f"{r:.2f} x" for r in ratios) + " |"])


BARE = """
import sys, time
import numpy as np
from models.loading import load
name, size, seconds = sys.argv[1], int(sys.argv[2]), float(sys.argv[3])
engine, pixels = load(name), np.random.default_rng(0).integers(0, 256, (size, 3, 32, 32), np.uint8)
engine.warm_up([size])
for _ in range(5): engine.run(pixels)
began, images = time.perf_counter(), 0
while time.perf_counter() - began < seconds:
    engine.run(pixels)
    images += size
print(images / (time.perf_counter() - began))
"""


def bare(name: str, batch_size: int, seconds: float) -> float:
    """Return the images per second of the engine alone, in a process of its own, one thread calling it in a loop."""
    command = [sys.executable, "-c", BARE, name, str(batch_size), str(seconds)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def batch_sizes(port: int, variant: str) -> tuple[float, float]:
    """Return sum and count of the variant's `precision_batch_size`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    name = rf'precision_batch_size_{{}}{{{{variant="{variant}"}}}} ([\d.e+]+)'
    found = [re.search(name.format(part), text) for part in ("sum", "count")]
    return float(found[0].group(1)), float(found[1].group(1))  # type: ignore[union-attr]


def served_table(variants: Sequence[str], rounds: int, seconds: int, folder: Path) -> str:
    """Return the table of served variants, each beside its bare engine."""
    port = free_port()
    lines = [
        "| served, 32 clients | images/s | batch size | bare engine at it, images/s | share |",
        "|---|---|---|---|---|",
    ]
    # 32 clients with 32 images each wait longer on a slow CPU than a queue admits by default
    flags = ("--variants", ",".join(variants), "--log-level", "warning", "--max-queue-wait", "60")
    with process("service", "--port", str(port), *flags):
        for variant in variants:
            url = f"http://127.0.0.1:{port}/predict/{variant}"
            for contender in (
                Contender(f"{variant}, PNG", url, *body(1)),
                Contender(f"{variant}, 32 raw images a request", url, *body(32), 32),
            ):
                wait_until_it_answers(contender)
                lines.append(_served_row(contender, variant, port, rounds, seconds, folder))
    return "\n".join(lines)


def lone_table(variants: Sequence[str], rounds: int, seconds: int, folder: Path) -> str:
    """Return the table of the latency of a lone client, beside the forward pass in a loop: medians of rounds."""
    port = free_port()
    lines = ["| one PNG, one client | p50, ms | forward pass, ms | above it, ms |", "|---|---|---|---|"]
    with process("service", "--port", str(port), "--variants", ",".join(variants), "--log-level", "warning"):
        for variant in variants:
            contender = Contender(variant, f"http://127.0.0.1:{port}/predict/{variant}", *body(1))
            wait_until_it_answers(contender)
            measure(contender, 1, 1, folder)
            turns = []
            for _ in range(rounds):
                p50, forward = measure(contender, 1, seconds, folder).p50, 1e3 / bare(variant, 1, seconds)
                turns.append((p50, forward, p50 - forward))
            p50, forward, above = map(statistics.median, zip(*turns, strict=True))
            lines.append(f"| {variant} | {p50:.2f} | {forward:.2f} | {above:.2f} |")
    return "\n".join(lines)


def _served_row(contender: Contender, variant: str, port: int, rounds: int, seconds: int, folder: Path) -> str:
    seconds = max(seconds, SETTLED) if contender.images > 1 else seconds
    measure(contender, 32, 1, folder)
    before = batch_sizes(port, variant)
    served, alone = [measure(contender, 32, seconds, folder).rate], []
    after = batch_sizes(port, variant)
    size = max(1, round((after[0] - before[0]) / (after[1] - before[1])))
    for _ in range(rounds):  # turns, so that a slow minute of the machine hits both
        alone.append(bare(variant, size, seconds))
        served.append(measure(contender, 32, seconds, folder).rate)
    rate, engine = statistics.median(served), statistics.median(alone)
    return f"| {contender.name} | {rate:,.0f} | {size} | {engine:,.0f} | {rate / engine:.0%} |"


OURS, THEIRS = "this checkout", "the other"
NOOP_SERVICE = (("benchmarks.noop", "service"), (), "/predict/fp32")
INT8_SERVICE = (("service", "--port"), ("--variants", "int8", "--log-level", "warning"), "/predict/int8")
COMPARED = {
    # what is compared: the module that serves it, flags before the port, flags after it, path; images of a request;
    # numbers of clients
    "no-op": (*NOOP_SERVICE, 1, CLIENTS),
    "no-op, 256 raw images": (*NOOP_SERVICE, 256, (1, 4)),
    "int8": (*INT8_SERVICE, 1, CLIENTS),
}


def body(images: int) -> tuple[bytes, str]:
    """Return the body of a request, and its content type: one PNG, or many images as raw pixels."""
    if images == 1:
        return png(), "image/png"
    pixels = np.random.default_rng(0).integers(0, 256, (images, 3, 32, 32), np.uint8)
    return pixels.tobytes(), "application/octet-stream"


def against_table(other: Path, rounds: int, seconds: int, folder: Path) -> str:
    """Return the table of this checkout's service beside that of the checkout in `other`, started the same way."""
    lines = [
        f"| images/s (p50 ms) | clients | {OURS} | {THEIRS} | {OURS} / {THEIRS} (95 % interval) |",
        "|---|---|---|---|---|",
    ]
    for what, (command, flags, path, images, clients) in COMPARED.items():
        with ExitStack() as stack:
            contenders = []
            for name, checkout in ((OURS, ROOT), (THEIRS, other)):
                port = free_port()
                stack.enter_context(process(*command, str(port), *flags, folder=checkout))
                contenders.append(Contender(name, f"http://127.0.0.1:{port}{path}", *body(images), images))
            for contender in contenders:
                wait_until_it_answers(contender)
            measured = interleave(contenders, clients, rounds, seconds, folder)
        for count in clients:
            ours, theirs = measured[OURS, count], measured[THEIRS, count]
            rates = " | ".join(f"{m.rate:,.0f} ({m.p50:.2f})" for m in (median(ours), median(theirs)))
            lines.append(f"| {what} | {count} | {rates} | {written(ratio(ours, theirs))} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    """Print the machine, then one Markdown table after another."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.hop", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=5, help="number of rounds (%(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="length of each round (%(default)s)")
    parser.add_argument("--variants", default="fp32,int8", help="served variants to measure (%(default)s)")
    parser.add_argument("--against", type=Path, metavar="DIR", help="only compare with the checkout in this folder")
    args = parser.parse_args(argv)
    require_wrk()
    print(json.dumps(machine.describe(*PACKAGES) | {"rounds": args.rounds, "seconds": args.seconds}), flush=True)
    with tempfile.TemporaryDirectory() as name:
        turns = (args.rounds, args.seconds, Path(name))
        if args.against:
            print(against_table(args.against.resolve(), *turns))
        else:
            print(noop_table(*turns), flush=True)
            print(served_table(args.variants.split(","), *turns), flush=True)
            print(lone_table(args.variants.split(","), *turns))


if __name__ == "__main__":
    main()

"""What the way through the service costs: `python -m benchmarks.hop`. Needs `wrk` (Debian: apt install wrk).

1. No-op model: this service, LitServe as shipped and FastAPI in process, the same 2.4 KB PNG, 1, 8 and 32 clients.
2. The fp32 and int8 variants served, against the bare engine in a loop at the batch size that the service formed.

In 1 all contenders run at once and take turns in short rounds, idle while another is measured. In 2 each row takes
turns with its own bare engine, row after row: compare the shares, not the rows. Medians of rounds.
"""

import argparse
import http.client
import io
import json
import os
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import numpy as np
from PIL import Image

from common import machine

ROOT = Path(__file__).parents[1]
CLIENTS = (1, 8, 32)
SETTLED = 8
"""Seconds of a round of large requests: 32 clients x 32 images keep a slow engine busy for some of them."""


@dataclass(frozen=True)
class Contender:
    """One server under wrk: how it is called, where, and what is sent to it."""

    name: str
    url: str
    body: bytes
    content_type: str
    images: int = 1


def png() -> bytes:
    """A 32x32 PNG of about 2.4 KB: smooth with noise, as a photograph is."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 180, 32)[:, None, None] + np.linspace(-30, 30, 32)[None, :, None]
    pixels = (ramp + rng.normal(0, 7, (32, 32, 3))).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


PACKAGES = ("torch", "litserve", "uvicorn")
"""Whose versions a published number carries."""


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return int(sock.getsockname()[1])


@contextmanager
def process(*command: str, stderr: IO[str] | None = None) -> Iterator[subprocess.Popen[bytes]]:
    """A server in a process group of its own; the whole group is gone afterwards."""
    server = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=ROOT, start_new_session=True, stdout=subprocess.DEVNULL, stderr=stderr
    )
    try:
        yield server
    finally:
        os.killpg(server.pid, signal.SIGINT)
        try:
            server.wait(15)
        except subprocess.TimeoutExpired:
            os.killpg(server.pid, signal.SIGKILL)


def wait_until_it_answers(contender: Contender, seconds: float = 180) -> None:
    host, port, path = re.fullmatch(r"http://([^:]+):(\d+)(/.*)", contender.url).groups()  # type: ignore[union-attr]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection(host, int(port), timeout=30)
            connection.request("POST", path, contender.body, {"Content-Type": contender.content_type})
            if connection.getresponse().status == 200:
                return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit(f"error: {contender.name} did not answer within {seconds:g} s")


def wrk(contender: Contender, clients: int, seconds: int, folder: Path) -> tuple[float, float]:
    """Images per second and the median latency in milliseconds of one round."""
    body = folder / "body"
    body.write_bytes(contender.body)
    script = folder / "post.lua"
    script.write_text(
        f'wrk.method = "POST"\nlocal f = io.open("{body}", "rb")\nwrk.body = f:read("*a")\nf:close()\n'
        f'wrk.headers["Content-Type"] = "{contender.content_type}"\n'
    )
    command = [
        "wrk",
        "-t1",
        f"-c{clients}",
        f"-d{seconds}s",
        "--timeout",
        "60s",
        "--latency",
        "-s",
        str(script),
        contender.url,
    ]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if errors := re.search(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", text):
        sys.exit(f"error: {contender.name}: {errors.group()}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))  # type: ignore[union-attr]
    value, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return rate * contender.images, float(value) * {"us": 1e-3, "ms": 1.0, "s": 1e3}[unit]


def interleave(
    contenders: Sequence[Contender], clients: Sequence[int], rounds: int, seconds: int, folder: Path
) -> dict[tuple[str, int], tuple[float, float]]:
    """(contender, clients) -> median images per second and median p50; the order turns round every round."""
    cells: dict[tuple[str, int], list[tuple[float, float]]] = {}
    for number in range(rounds + 1):
        order = list(contenders) if number % 2 else list(reversed(contenders))
        for count in clients:
            for contender in order:
                measured = wrk(contender, count, seconds if number else 1, folder)
                if number:  # the first round warms up
                    cells.setdefault((contender.name, count), []).append(measured)
    return {
        key: (statistics.median(rate for rate, _ in values), statistics.median(p50 for _, p50 in values))
        for key, values in cells.items()
    }


def noop_table(rounds: int, seconds: int, folder: Path) -> str:
    with ExitStack() as stack:
        contenders = []
        for kind, path in (("service", "/predict/fp32"), ("litserve", "/predict"), ("fastapi", "/predict")):
            port = free_port()
            stack.enter_context(process("benchmarks.noop", kind, str(port)))
            contenders.append(Contender(kind, f"http://127.0.0.1:{port}{path}", png(), "image/png"))
        for contender in contenders:
            wait_until_it_answers(contender)
        cells = interleave(contenders, CLIENTS, rounds, seconds, folder)
    names = {"service": "this service", "litserve": "LitServe as shipped", "fastapi": "FastAPI in process"}
    lines = [
        "| no-op, requests/s (p50 ms) | " + " | ".join(f"{n} clients" for n in CLIENTS) + " |",
        "|---|---|---|---|",
    ]
    for kind, name in names.items():
        values = (cells[kind, count] for count in CLIENTS)
        lines.append(f"| {name} | " + " | ".join(f"{rate:,.0f} ({p50:.2f})" for rate, p50 in values) + " |")
    ratios = (cells["service", count][0] / cells["litserve", count][0] for count in CLIENTS)
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
    """Images per second of the engine alone, in a process of its own, one thread calling it in a loop."""
    command = [sys.executable, "-c", BARE, name, str(batch_size), str(seconds)]
    return float(subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout)


def mean_batch_size(port: int, variant: str) -> tuple[float, float]:
    """Sum and count of `precision_batch_size`."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", "/metrics")
    text = connection.getresponse().read().decode()
    name = rf'precision_batch_size_{{}}{{{{variant="{variant}"}}}} ([\d.e+]+)'
    found = [re.search(name.format(part), text) for part in ("sum", "count")]
    return float(found[0].group(1)), float(found[1].group(1))  # type: ignore[union-attr]


def served_table(variants: Sequence[str], rounds: int, seconds: int, folder: Path) -> str:
    port = free_port()
    pixels = np.random.default_rng(0).integers(0, 256, (32, 3, 32, 32), np.uint8).tobytes()
    lines = [
        "| served, 32 clients | images/s | batch size | bare engine at it, images/s | share |",
        "|---|---|---|---|---|",
    ]
    with process("service", "--port", str(port), "--variants", ",".join(variants), "--log-level", "warning"):
        for variant in variants:
            url = f"http://127.0.0.1:{port}/predict/{variant}"
            for contender in (
                Contender(f"{variant}, PNG", url, png(), "image/png"),
                Contender(f"{variant}, 32 raw images a request", url, pixels, "application/octet-stream", 32),
            ):
                wait_until_it_answers(contender)
                lines.append(_served_row(contender, variant, port, rounds, seconds, folder))
    return "\n".join(lines)


def _served_row(contender: Contender, variant: str, port: int, rounds: int, seconds: int, folder: Path) -> str:
    seconds = max(seconds, SETTLED) if contender.images > 1 else seconds
    wrk(contender, 32, 1, folder)
    before = mean_batch_size(port, variant)
    served, alone = [wrk(contender, 32, seconds, folder)[0]], []
    after = mean_batch_size(port, variant)
    size = max(1, round((after[0] - before[0]) / (after[1] - before[1])))
    for _ in range(rounds):  # turns, so that a slow minute of the machine hits both
        alone.append(bare(variant, size, seconds))
        served.append(wrk(contender, 32, seconds, folder)[0])
    rate, engine = statistics.median(served), statistics.median(alone)
    return f"| {contender.name} | {rate:,.0f} | {size} | {engine:,.0f} | {rate / engine:.0%} |"


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.hop", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5, help="(%(default)s)")
    parser.add_argument("--seconds", type=int, default=3, help="of each round (%(default)s)")
    parser.add_argument("--variants", default="fp32,int8", help="served variants to measure (%(default)s)")
    args = parser.parse_args(argv)
    if shutil.which("wrk") is None:
        sys.exit("error: wrk is missing; on Debian and Ubuntu: apt install wrk")
    print(json.dumps(machine.describe(*PACKAGES) | {"rounds": args.rounds, "seconds": args.seconds}))
    with tempfile.TemporaryDirectory() as folder:
        print(noop_table(args.rounds, args.seconds, Path(folder)), flush=True)
        print(served_table(args.variants.split(","), args.rounds, args.seconds, Path(folder)))


if __name__ == "__main__":
    main()

"""What measuring costs and leaves unexplained: `python -m benchmarks.measuring`. Needs `wrk` (Debian: apt install wrk).

1. The no-op model and real variants under 32 clients, in short rounds of random order: with metrics and log, with
   metrics, with neither.
2. One line of the request log, written to a file, beside the logging module's way to a like line.
3. The share of a request's time that no phase explains (`other`), as served variants tell it: medians over requests.
"""

import argparse
import http.client
import json
import logging
import os
import random
import re
import shutil
import signal
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, redirect_stderr
from pathlib import Path

import numpy as np

from benchmarks.hop import PACKAGES, Contender, free_port, png, process, wait_until_it_answers, wrk
from common import machine
from service.logs import JsonFormatter, RequestLog
from service.metrics import PHASES

CLIENTS = 32
PNG = png()
NEITHER = "neither"
ARMS = {"metrics and log": signal.SIGUSR1, "metrics": signal.SIGUSR2, NEITHER: signal.SIGHUP}
"""What is switched on in a round, and the signal that does (benchmarks.noop)."""
TIMING = re.compile(r"(\w+);dur=([\d.]+)")


def cost_table(variant: str, rounds: int, seconds: int, folder: Path) -> str:
    """One process whose metrics and log are switched between short rounds: two processes differ by more than that."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/predict/{variant or 'fp32'}"
    contender = Contender(variant or "no-op", url, PNG, "image/png")
    cells: dict[str, list[tuple[float, float]]] = {name: [] for name in ARMS}
    with (folder / "log").open("w") as log, ExitStack() as stack:
        arguments = filter(None, (str(port), variant))
        server = stack.enter_context(process("benchmarks.noop", "service", *arguments, stderr=log))
        wait_until_it_answers(contender)
        for number in range(rounds + 1):
            for name in random.sample(list(ARMS), len(ARMS)):
                os.kill(server.pid, ARMS[name])
                measured = wrk(contender, CLIENTS, seconds if number else 1, folder)
                if number:  # the first round warms up
                    cells[name].append(measured)
    rates = {name: np.array([rate for rate, _ in found]) for name, found in cells.items()}
    lines = [
        f"| {contender.name}, {CLIENTS} clients | requests/s | p50 ms | throughput lost, % (quartiles over rounds) |",
        "|---|---|---|---|",
    ]
    for name, found in cells.items():
        lost = np.percentile((1 - rates[name] / rates[NEITHER]) * 100, (50, 25, 75))
        p50 = statistics.median(p50 for _, p50 in found)
        share = "" if name == NEITHER else "{:.1f} ({:.1f} to {:.1f})".format(*lost)
        lines.append(f"| {name} | {np.median(rates[name]):,.0f} | {p50:.2f} | {share} |")
    return "\n".join(lines)


def microseconds(call: Callable[[], object], count: int = 20_000) -> float:
    """Of one call: the median of five runs."""
    runs = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(count):
            call()
        runs.append((time.perf_counter() - began) / count * 1e6)
    return statistics.median(runs)


def line_table(folder: Path) -> str:
    phases = dict.fromkeys(PHASES, 0.000123456)
    fields = {"request_id": "0" * 32, "variant": "int8", "outcome": "ok", "images": 1, "seconds": 0.0012, **phases}
    logger = logging.getLogger("service.logs")
    logger.propagate = False
    costs = {}
    with (folder / "lines").open("w", buffering=1) as file, redirect_stderr(file):
        handler = logging.StreamHandler(file)
        handler.setFormatter(JsonFormatter())
        logger.addHandler(handler)
        for level in (logging.INFO, logging.WARNING):
            logger.setLevel(level)
            log = RequestLog(["int8"])
            write = lambda log=log: log("0" * 32, "int8", "ok", 1, 0.0012, phases)  # noqa: E731
            costs[f"RequestLog, level {logging.getLevelName(level).lower()}"] = microseconds(write)
        logger.setLevel(logging.INFO)
        costs["logging and json.dumps"] = microseconds(lambda: logger.info(json.dumps(fields)))
    return "\n".join(["| a line of the log | us |", "|---|---|", *(f"| {k} | {v:.2f} |" for k, v in costs.items())])


def timings(port: int, variant: str, seconds: float) -> list[dict[str, float]]:
    """The Server-Timing of each answer that one client gets."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    found, deadline = [], time.monotonic() + seconds
    while time.monotonic() < deadline:
        connection.request("POST", f"/predict/{variant}", PNG, {"Content-Type": "image/png"})
        answer = connection.getresponse()
        answer.read()
        found.append({name: float(value) for name, value in TIMING.findall(answer.headers["Server-Timing"])})
    connection.close()
    return found


def remainder_table(variants: Sequence[str], seconds: float) -> str:
    port = free_port()
    lines = ["| served | clients | n | total, ms (p50) | no phase explains (p50) |", "|---|---|---|---|---|"]
    with process("service", "--port", str(port), "--variants", ",".join(variants), "--log-level", "warning"):
        for variant in variants:
            url = f"http://127.0.0.1:{port}/predict/{variant}"
            wait_until_it_answers(Contender(variant, url, PNG, "image/png"))
            for clients in (1, CLIENTS):
                with ThreadPoolExecutor(clients) as pool:
                    runs = [pool.submit(timings, port, variant, seconds) for _ in range(clients)]
                    found = [timing for run in runs for timing in run.result()]
                totals = [sum(timing.values()) for timing in found]
                shares = [timing["other"] / total for timing, total in zip(found, totals, strict=True)]
                p50, share = statistics.median(totals), statistics.median(shares)
                lines.append(f"| {variant} | {clients} | {len(found):,} | {p50:.2f} | {share:.1%} |")
    return "\n".join(lines)


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.measuring", description=__doc__)
    parser.add_argument("--rounds", type=int, default=15, help="(%(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="of each round (%(default)s)")
    parser.add_argument("--variants", default="fp32,int8", help="served variants to measure (%(default)s)")
    args = parser.parse_args(argv)
    if shutil.which("wrk") is None:
        sys.exit("error: wrk is missing; on Debian and Ubuntu: apt install wrk")
    print(json.dumps(machine.describe(*PACKAGES) | {"rounds": args.rounds, "seconds": args.seconds}))
    with tempfile.TemporaryDirectory() as folder:
        for variant in ("", *args.variants.split(",")):
            print(cost_table(variant, args.rounds, args.seconds, Path(folder)), flush=True)
        print(line_table(Path(folder)), flush=True)
    print(remainder_table(args.variants.split(","), args.seconds), flush=True)


if __name__ == "__main__":
    main()

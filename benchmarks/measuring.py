"""What measuring costs and leaves unexplained: `python -m benchmarks.measuring`. Needs `wrk` (Debian: apt install wrk).

1. The no-op model and real variants under 32 clients, in short rounds of random order: as served with the log at
   `warning`, with the log at `info`, and without metrics.
2. One line of the request log, written to a file, beside a like line of the logging module.
3. The share of a request's time that no phase explains (`other`), as served variants report it: medians over requests.
"""

import argparse
import http.client
import json
import logging
import re
import statistics
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import redirect_stderr
from pathlib import Path

from benchmarks.switched import AS_SERVED, switched_rounds
from benchmarks.wrk import (
    PACKAGES,
    Contender,
    free_port,
    median,
    png,
    process,
    ratio,
    require_wrk,
    wait_until_it_answers,
    written,
)
from common import machine
from service.logs import JsonFormatter, RequestLog
from service.metrics import PHASES

CLIENTS = 32
PNG = png()
ARMS = ("with the log", AS_SERVED, "without metrics")
TIMING = re.compile(r"(\w+);dur=([\d.]+)")


def cost_table(variant: str, rounds: int, seconds: int, folder: Path) -> str:
    """Return the throughput of each arm, and its ratio to that without metrics and log."""
    measured = switched_rounds(variant, ARMS, (CLIENTS,), rounds, seconds, folder)
    lines = [
        f"| {variant or 'no-op'}, {CLIENTS} clients | requests/s | p50 ms | to {ARMS[-1]} (95 % interval) |",
        "|---|---|---|---|",
    ]
    for arm in ARMS:
        cell = median(measured[arm, CLIENTS])
        times = written(ratio(measured[arm, CLIENTS], measured[ARMS[-1], CLIENTS]))
        lines.append(f"| {arm} | {cell.rate:,.0f} | {cell.p50:.2f} | {times} |")
    return "\n".join(lines)


def microseconds(call: Callable[[], object], count: int = 20_000) -> float:
    """Return the time of one call: the median of five runs of `count` calls."""
    runs = []
    for _ in range(5):
        began = time.perf_counter()
        for _ in range(count):
            call()
        runs.append((time.perf_counter() - began) / count * 1e6)
    return statistics.median(runs)


def line_table(folder: Path) -> str:
    """Return the time that a line of the request log takes."""
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
    """Return the Server-Timing, in milliseconds by phase, of each answer that one client gets."""
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
    """Return the share of a request's time that no phase explains, for one client and for several."""
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
    """Print the machine, then one Markdown table after another."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.measuring", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=15, help="number of rounds (%(default)s)")
    parser.add_argument("--seconds", type=int, default=2, help="length of each round (%(default)s)")
    parser.add_argument("--variants", default="fp32,int8", help="served variants to measure (%(default)s)")
    args = parser.parse_args(argv)
    require_wrk()
    print(json.dumps(machine.describe(*PACKAGES) | {"rounds": args.rounds, "seconds": args.seconds}))
    with tempfile.TemporaryDirectory() as folder:
        for variant in ("", *args.variants.split(",")):
            print(cost_table(variant, args.rounds, args.seconds, Path(folder)), flush=True)
        print(line_table(Path(folder)), flush=True)
    print(remainder_table(args.variants.split(","), args.seconds), flush=True)


if __name__ == "__main__":
    main()

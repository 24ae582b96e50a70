"""The ratio of two latencies as the load test reports it, beside the true one: `python -m benchmarks.sending`.

A tiny server answers each request a fixed time after it came, so requests do not queue. The true latency is the p50 of
a plain socket that sends one request after the other. The load test sends at random times and reports its own p50: with
the `GEVENT_BACKEND` that it sets, and with libev's default one, whose timers fall on a grid of milliseconds.
"""

import argparse
import asyncio
import json
import os
import re
import selectors
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

from tabulate import tabulate

from common import machine
from loadtest.report.cells import Cell
from loadtest.report.schema import read

TRUE = 1.91
FAST = (0.0006, 0.003)
"""True latencies of the faster arm in seconds."""
RATE = 200
ROUND = 0.2
ARMS = ("fast", "slow")
BACKENDS = ("select", "epoll")
"""The one that the load test sets, and libev's default."""
ASKED = 1000
"""Requests of the plain socket for one latency."""
LENGTH = re.compile(rb"content-length: *(\d+)", re.IGNORECASE)
ANSWER = b'{"predictions": [{"class_index": 0}]}'
BODY = bytes(3 * 32 * 32)
HEAD = f"Host: x\r\nContent-Type: application/octet-stream\r\nContent-Length: {len(BODY)}\r\n\r\n"


class Fixed(asyncio.Protocol):
    """A connection whose predictions take the seconds of their variant."""

    def __init__(self, seconds: Mapping[str, float]) -> None:
        self._seconds = seconds
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Keep the way back."""
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        """Answer each whole request, a prediction after its time."""
        came, self._read = time.perf_counter(), self._read + data
        head, end, body = self._read.partition(b"\r\n\r\n")
        length = LENGTH.search(head)
        if not end or len(body) < (int(length[1]) if length else 0):
            return
        self._read = b""
        path = head.split(b" ", 2)[1].decode()
        content = self._content(path)
        answer = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(content)
        left = self._seconds.get(path.removeprefix("/predict/"), 0.0) - (time.perf_counter() - came)
        asyncio.get_running_loop().call_later(max(0.0, left), self._transport.write, answer + content)

    def _content(self, path: str) -> bytes:
        if path == "/variants":
            rows = [{"name": n, "state": "ready", "reference": None if n == "fast" else "fast"} for n in self._seconds]
            return json.dumps({"variants": rows, "checkpoint": {}, "service": {}}).encode()
        return b"" if path == "/metrics" else ANSWER


def serve(seconds: Mapping[str, float], port: Connection) -> None:
    """Serve until the process ends. The selector is `select`, whose timeouts are not rounded to milliseconds."""

    async def run() -> None:
        server = await asyncio.get_running_loop().create_server(lambda: Fixed(seconds), "127.0.0.1", 0)
        port.send(server.sockets[0].getsockname()[1])
        await server.serve_forever()

    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        runner.run(run())


@contextmanager
def serving(seconds: Mapping[str, float]) -> Iterator[int]:
    """Start a server with these seconds by variant, and yield its port."""
    context = get_context("spawn")
    ours, theirs = context.Pipe()
    process = context.Process(target=serve, args=(dict(seconds), theirs))
    process.start()
    try:
        yield ours.recv()
    finally:
        process.terminate()
        process.join()


def plain(port: int, variant: str) -> float:
    """Return the p50 of one request after the other, over a plain socket."""
    request = f"POST /predict/{variant} HTTP/1.1\r\n{HEAD}".encode() + BODY
    took = []
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for _ in range(ASKED):
            began = time.perf_counter()
            connection.sendall(request)
            connection.recv(4096)
            took.append(time.perf_counter() - began)
    return statistics.median(took)


def reported(port: int, backend: str, seconds: float) -> tuple[str, ...]:
    """Return what a run of the load test reports: the p50 of both arms, the fast one first, and the other columns."""
    with tempfile.TemporaryDirectory() as folder:
        flags = ["--rate", RATE, "--duration", seconds, "--round", ROUND, "--settle", 0.1, "--warm-up", 0.5]
        command = [sys.executable, "-m", "loadtest", "--url", f"http://127.0.0.1:{port}", "--out", folder]
        command += ["--payload", "raw", *map(str, flags)]
        subprocess.run(command, env=os.environ | {"GEVENT_BACKEND": backend}, check=False, capture_output=True)
        report = read(Path(folder) / "report.json")
    cells = {cell.arm: cell for cell in report.cells}
    found = report.comparisons[0].ratios.p50
    words = f"{found.estimate:.2f} [{found.low:.2f}, {found.high:.2f}]" if found and found.low and found.high else "-"
    p50s = (1000 * (cells[arm].latency.p50 or 0.0) for arm in ARMS)
    late = 1000 * max(cells[arm].lateness.p50 or 0.0 for arm in ARMS)
    verdict = words + (" (INVALID)" if report.reasons else "")
    cpu = 1000 * statistics.mean(cpu_per_request(cells[arm]) for arm in ARMS)
    return *(f"{p50:.2f}" for p50 in p50s), verdict, f"{late:.2f}", f"{cpu:.2f}"


def cpu_per_request(cell: Cell) -> float:
    """Return the CPU seconds of the load generator per request."""
    per_second = cell.requests / (len(cell.rounds) * ROUND)
    return statistics.mean(played.client_cpu for played in cell.rounds) / per_second


def rows(fast: float, seconds: float) -> Iterator[tuple[str, ...]]:
    """Yield what the plain socket sees, then what the load test reports, for two arms of true ratio TRUE."""
    with serving(dict.fromkeys(ARMS, 0.0)) as port:
        around = plain(port, "fast")
    with serving({"fast": fast - around, "slow": TRUE * fast - around}) as port:
        truth = [plain(port, arm) for arm in ARMS]
        yield "a plain socket", *(f"{1000 * p50:.2f}" for p50 in truth), f"{truth[1] / truth[0]:.2f}", "-", "-"
        for backend in BACKENDS:
            yield f"the load test, {backend}", *reported(port, backend, seconds)


def main() -> None:
    """Print the machine and a table of true and reported ratios."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.sending", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=4.0, help="counted seconds of each arm (default %(default)g)")
    seconds = parser.parse_args().seconds
    print(json.dumps(machine.describe("locust", "gevent") | {"seconds": seconds}))
    for fast in FAST:
        headers = (
            f"{RATE} requests/s",
            "fast, p50 ms",
            "slow, p50 ms",
            "ratio",
            "sent late, p50 ms",
            "client CPU, ms a request",
        )
        print(tabulate(list(rows(fast, seconds)), headers, tablefmt="pipe", disable_numparse=True), "\n", flush=True)


if __name__ == "__main__":
    main()

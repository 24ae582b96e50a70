"""What a scrape costs the service: `python -m benchmarks.scrapes [FLAGS of the service]`.

The table has the processor time of the event loop's thread for one scrape, and the longest time that a client waits
for /health/live during one, both as medians over the scrapes.
"""

import http.client
import json
import statistics
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tabulate import tabulate

from benchmarks.wrk import Contender, free_port, png, process, wait_until_it_answers
from common import machine

SCRAPES = 20
"""Scrapes of each measurement, after one that is left out."""
PERIOD = 1.2
"""Seconds between two scrapes: more than the second for which the memory of the workers is kept."""


def thread_seconds(pid: int) -> float:
    """Return the processor time of a process's first thread, which runs its event loop."""
    return int(Path(f"/proc/{pid}/task/{pid}/schedstat").read_text().split()[0]) / 1e9


def get(port: int, path: str) -> None:
    """Read one answer on a connection of its own."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
    connection.request("GET", path)
    connection.getresponse().read()
    connection.close()


def costs(port: int, pid: int) -> Iterator[float]:
    """Yield the processor seconds of each scrape."""
    for number in range(SCRAPES + 1):
        before = thread_seconds(pid)
        get(port, "/metrics")
        time.sleep(PERIOD / 2)  # the service closes the connection after it answered
        if number:
            yield thread_seconds(pid) - before
        time.sleep(PERIOD / 2)


@contextmanager
def bystander(port: int) -> Iterator[list[float]]:
    """Ask for /health/live again and again while the block runs; yield the seconds of each answer."""
    seconds: list[float] = []
    is_over = threading.Event()

    def ask() -> None:
        while not is_over.wait(0.002):
            began = time.perf_counter()
            get(port, "/health/live")
            seconds.append(time.perf_counter() - began)

    thread = threading.Thread(target=ask)
    thread.start()
    try:
        yield seconds
    finally:
        is_over.set()
        thread.join()


def waits(port: int, with_scrape: bool) -> Iterator[float]:
    """Yield the bystander's longest wait during each scrape, or during as many pauses without one."""
    for number in range(SCRAPES + 1):
        with bystander(port) as seconds:
            if with_scrape:
                get(port, "/metrics")
            time.sleep(0.1)
        if number:
            yield max(seconds)
        time.sleep(PERIOD)


def main(flags: list[str]) -> None:
    port = free_port()
    with process("service", "--port", str(port), *flags) as server:
        for variant in ("fp32", "int8"):
            wait_until_it_answers(Contender(variant, f"http://127.0.0.1:{port}/predict/{variant}", png(), "image/png"))
        rows = {
            "processor time of the event loop for a scrape": costs(port, server.pid),
            "longest wait of a bystander, during a scrape": waits(port, with_scrape=True),
            "longest wait of a bystander, without one": waits(port, with_scrape=False),
        }
        table = [[name, *(f"{1000 * q:.1f}" for q in statistics.quantiles(each))] for name, each in rows.items()]
    print(tabulate(table, ["ms", "lower quartile", "median", "upper quartile"], tablefmt="github"))
    print(json.dumps(machine.describe("prometheus_client", "psutil", "uvicorn")))


if __name__ == "__main__":
    main(sys.argv[1:])

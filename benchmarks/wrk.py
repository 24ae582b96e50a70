"""Servers under load from `wrk`: start them, measure them in turns, compare them round by round."""

import http.client
import io
import math
import os
import random
import re
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, NamedTuple

import numpy as np
from PIL import Image

from common.statistics import Interval

ROOT = Path(__file__).parents[1]
CLIENTS = (1, 8, 32)
PACKAGES = ("torch", "openvino", "litserve", "fastapi", "uvicorn")
"""The packages whose versions stand beside a published number."""
FIRST_PORT, CLIENT_PORTS = 10_000, 32_768
"""The lowest port for a server, and the lowest of a client's connections: Linux takes 32,768 to 60,999 for those."""
SETTLED = 8
"""Seconds of a round of large requests: 32 clients x 32 images keep a slow engine busy for some of them."""
MILLISECONDS = {"us": 1e-3, "ms": 1.0, "s": 1e3}


@dataclass(frozen=True)
class Contender:
    """One server under wrk: its name, its URL, and the request that it gets."""

    name: str
    url: str
    body: bytes
    content_type: str
    images: int = 1


class Round(NamedTuple):
    """The images per second and the median latency, in milliseconds, of one round.

    Where they were measured, `http_cpu` and `cpu` are the processor time per image, in microseconds, of the server's
    HTTP process and of all its processes.
    """

    rate: float
    p50: float
    http_cpu: float = math.nan
    cpu: float = math.nan


Rounds = dict[tuple[str, int], list[Round]]
"""(contender, clients) -> its rounds, in the order in which they ran."""


def png() -> bytes:
    """Return a 32x32 PNG of about 2.4 KB: smooth with noise, as a photograph is."""
    rng = np.random.default_rng(0)
    ramp = np.linspace(60, 180, 32)[:, None, None] + np.linspace(-30, 30, 32)[None, :, None]
    pixels = (ramp + rng.normal(0, 7, (32, 32, 3))).clip(0, 255).astype(np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "PNG")
    return buffer.getvalue()


def free_port(count: int = 1) -> int:
    """Return the first of `count` ports in a row that nobody uses now.

    They lie below CLIENT_PORTS, from which the system takes a port for each connection of a client. The connections
    that ask a server whether it is ready would else sometimes hold a port before the server listens on it.
    """
    while True:
        first = random.randrange(FIRST_PORT, CLIENT_PORTS - count)
        with suppress(OSError), ExitStack() as held:
            for port in range(first, first + count):
                held.enter_context(socket.socket()).bind(("127.0.0.1", port))
            return first


def require_wrk() -> None:
    """Exit with the command that installs wrk if it is missing."""
    if shutil.which("wrk") is None:
        sys.exit("error: wrk is missing; on Debian and Ubuntu: apt install wrk")


@contextmanager
def process(*command: str, stderr: IO[str] | None = None, folder: Path = ROOT) -> Iterator[subprocess.Popen[bytes]]:
    """Run `python -m COMMAND` in `folder`, in a process group of its own; the whole group is ended afterwards."""
    server = subprocess.Popen(
        [sys.executable, "-m", *command], cwd=folder, start_new_session=True, stdout=subprocess.DEVNULL, stderr=stderr
    )
    with ended(server):
        yield server


@contextmanager
def ended(server: subprocess.Popen[bytes]) -> Iterator[None]:
    """End the process group that `server` leads after the block."""
    try:
        yield
    finally:
        with suppress(ProcessLookupError, subprocess.TimeoutExpired):
            os.killpg(server.pid, signal.SIGINT)
            server.wait(15)
        with suppress(ProcessLookupError):  # all of it has ended
            os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def wait_until_it_answers(contender: Contender, seconds: float = 180) -> None:
    """Return once the contender's request is answered with 200; exit if that takes longer than `seconds`."""
    host, port, path = re.fullmatch(r"http://([^:]+):(\d+)(/.*)", contender.url).groups()  # type: ignore[union-attr]
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            connection = http.client.HTTPConnection(host, int(port), timeout=30)
            connection.request("POST", path, contender.body, {"Content-Type": contender.content_type})
            if connection.getresponse().status == http.HTTPStatus.OK:
                return
        except OSError:
            pass
        time.sleep(0.2)
    sys.exit(f"error: {contender.name} did not answer within {seconds:g} s")


def measure(contender: Contender, clients: int, seconds: int, folder: Path) -> Round:
    """Return what wrk measures in one round of `seconds`; `folder` takes its script. Exit if an answer is not 200."""
    body, script = folder / "body", folder / "post.lua"
    body.write_bytes(contender.body)
    script.write_text(
        f'wrk.method = "POST"\nlocal f = io.open("{body}", "rb")\nwrk.body = f:read("*a")\nf:close()\n'
        f'wrk.headers["Content-Type"] = "{contender.content_type}"\n'
    )
    flags = ("-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "60s", "--latency", "-s", str(script))
    command = ["wrk", *flags, contender.url]
    text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    if errors := re.search(r"Non-2xx or 3xx responses: \d+|Socket errors: .*", text):
        sys.exit(f"error: {contender.name}: {errors.group()}")
    rate = float(re.search(r"Requests/sec:\s+([\d.]+)", text).group(1))  # type: ignore[union-attr]
    value, unit = re.search(r"50%\s+([\d.]+)(us|ms|s)", text).groups()  # type: ignore[union-attr]
    return Round(rate * contender.images, float(value) * MILLISECONDS[unit])


def interleave(
    contenders: Sequence[Contender], clients: Sequence[int], rounds: int, seconds: int, folder: Path
) -> Rounds:
    """Measure all contenders in every round, in an order that turns round each time, after a first round of 1 s."""
    measured: Rounds = {(contender.name, count): [] for contender in contenders for count in clients}
    for number in range(rounds + 1):
        order = list(contenders) if number % 2 else list(reversed(contenders))
        for count in clients:
            for contender in order:
                result = measure(contender, count, seconds if number else 1, folder)
                if number:  # the first round warms up
                    measured[contender.name, count].append(result)
    return measured


def median(rounds: Sequence[Round]) -> Round:
    """Return the median of each number."""
    return Round(*map(statistics.median, zip(*rounds, strict=True)))


def ratio(ours: Sequence[Round], theirs: Sequence[Round]) -> Interval:
    """Return how many times as fast `ours` are: the median of the ratios within a round.

    The 95 % interval is the percentile bootstrap over rounds (Efron and Tibshirani, An Introduction to the Bootstrap,
    1993, chapter 13), 10,000 resamples.
    """
    ratios = np.array([one.rate / other.rate for one, other in zip(ours, theirs, strict=True)])
    resamples = np.random.default_rng(0).choice(ratios, (10_000, len(ratios)))
    low, high = np.percentile(np.median(resamples, axis=1), (2.5, 97.5))
    return Interval(float(np.median(ratios)), float(low), float(high))


def written(times: Interval) -> str:
    """Return a ratio and its interval as a table's cell."""
    return f"{times.estimate:.2f} x ({times.low:.2f} to {times.high:.2f})"

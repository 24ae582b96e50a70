"""This service with parts that signals switch: `python -m benchmarks.switched PORT [VARIANT]`.

The parts change between short rounds within one process, because two processes differ by more than a part costs.
Without a variant the engine is the no-op of benchmarks.noop.
"""

import asyncio
import logging
import os
import random
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import prometheus_client
import psutil
from numpy.typing import NDArray
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from benchmarks.noop import NoopAPI
from benchmarks.wrk import Contender, Rounds, free_port, measure, png, process, wait_until_it_answers
from service import logs
from service.histograms import Series
from service.metric_rows import SECONDS
from service.metrics import Metrics
from service.server import build_server
from service.settings import Settings
from service.workers.api import PrecisionAPI


@dataclass(frozen=True)
class Arm:
    """One way to serve. The defaults are those of the service at log level `warning`."""

    has_log: bool = False
    has_metrics: bool = True
    has_short_cut: bool = True
    """True if predictions by-pass FastAPI's middleware and routing."""
    has_limits: bool = True
    """True if connections have the limits of service/http/slow_clients.py; uvicorn's own protocol has none."""
    has_own_histograms: bool = True
    """True if service/histograms.py counts observations; else prometheus_client does."""


AS_SERVED = "as served"
ARMS = {
    AS_SERVED: Arm(),
    "with the log": Arm(has_log=True),
    "without metrics": Arm(has_metrics=False),
    "through FastAPI's routing": Arm(has_short_cut=False),
    "uvicorn's own protocol": Arm(has_limits=False),
    "prometheus_client's histograms": Arm(has_own_histograms=False),
}


class Switch:
    """The arm that is served now. It is switched while there are no requests."""

    arm = ARMS[AS_SERVED]


class SwitchedMetrics(Metrics):
    """Metrics that observe requests in the arms that have them."""

    def started(self, variant: str) -> None:
        """Observe a start, or nothing."""
        if Switch.arm.has_metrics:
            super().started(variant)

    def ended(self, variant: str, outcome: str, seconds: float) -> None:
        """Observe an end, or nothing."""
        if Switch.arm.has_metrics:
            super().ended(variant, outcome, seconds)

    def answered(self, *args: Any) -> None:
        """Observe an answer, or nothing."""
        if Switch.arm.has_metrics:
            super().answered(*args)

    def batch(self, variant: str, images: int, seconds: float) -> None:
        """Observe a batch, or nothing."""
        if Switch.arm.has_metrics:
            super().batch(variant, images, seconds)


class SwitchedFront:
    """ASGI: the app that the service puts in front, or FastAPI alone."""

    def __init__(self, front: ASGIApp, app: ASGIApp) -> None:
        self.front = front
        self.app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        await (self.front if Switch.arm.has_short_cut else self.app)(scope, receive, send)


class Unlimited(HttpToolsProtocol):
    """uvicorn's own protocol. It tells the server of its loss, as the server expects of every connection."""

    _on_loss: Callable[[], None] | None = None

    def when_lost(self, act: Callable[[], None]) -> None:
        """Call `act` once the connection is lost."""
        self._on_loss = act

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the server."""
        super().connection_lost(exc)
        if self._on_loss:
            self._on_loss()


def protocol(limited: Callable[..., asyncio.Protocol], *args: Any, **named: Any) -> asyncio.Protocol:
    """Return the protocol of a new connection."""
    return limited(*args, **named) if Switch.arm.has_limits else Unlimited(*args, **named)


THEIRS = prometheus_client.Histogram("seconds", "A histogram of the library.", buckets=SECONDS, registry=None)


OBSERVE = Series.observe


def _observe(_: Series, value: float) -> None:
    THEIRS.observe(value)


def signal_of(arm: str) -> int:
    """Return the number of the signal that switches to an arm."""
    return signal.SIGRTMIN + list(ARMS).index(arm)


def _switch(number: int, _frame: object) -> None:
    Switch.arm = list(ARMS.values())[number - signal.SIGRTMIN]
    logging.getLogger().setLevel(logging.INFO if Switch.arm.has_log else logging.WARNING)
    Series.observe = OBSERVE if Switch.arm.has_own_histograms else _observe  # type: ignore[assignment, method-assign]


def serve(port: int, variant: str = "") -> None:
    """Serve until the process is stopped."""
    for arm in ARMS:
        signal.signal(signal_of(arm), _switch)
    settings = Settings(port=port, variants=(variant or "fp32",), log_level="warning")
    logs.configure(settings.log_level)
    server = build_server(settings, api=PrecisionAPI if variant else NoopAPI, metrics=SwitchedMetrics)
    server.front = SwitchedFront(server.front, server.app)
    # uvicorn calls it once per connection, and does not care that it is no class
    server.protocol = partial(protocol, server.protocol)  # type: ignore[assignment]
    server.run(socket.create_server((settings.host, port)))


def switched_rounds(
    variant: str, arms: Sequence[str], clients: Sequence[int], rounds: int, seconds: int, folder: Path
) -> Rounds:
    """Measure all arms in every round, in a random order, after a first round of 1 s that warms up."""
    port = free_port()
    url = f"http://127.0.0.1:{port}/predict/{variant or 'fp32'}"
    contender = Contender(variant or "no-op", url, png(), "image/png")
    measured: Rounds = {(arm, count): [] for arm in arms for count in clients}
    with (folder / "log").open("w") as log, ExitStack() as stack:
        arguments = filter(None, (str(port), variant))
        server = stack.enter_context(process("benchmarks.switched", *arguments, stderr=log))
        wait_until_it_answers(contender)
        for number in range(rounds + 1):
            for count in clients:
                for arm in random.sample(list(arms), len(arms)):
                    os.kill(server.pid, signal_of(arm))
                    before = cpu_seconds(server.pid)
                    result = measure(contender, count, seconds if number else 1, folder)
                    if number:
                        used = 1e6 * (cpu_seconds(server.pid) - before) / (result.rate * seconds)
                        measured[arm, count].append(result._replace(http_cpu=used[0], cpu=used.sum()))
    return measured


def cpu_seconds(pid: int) -> NDArray[np.float64]:
    """Return the processor time that a process has used, and that of its children together."""
    process = psutil.Process(pid)
    every = [one.cpu_times() for one in (process, *process.children(recursive=True))]
    own, *others = [times.user + times.system for times in every]
    return np.array([own, sum(others)])


if __name__ == "__main__":
    serve(int(sys.argv[1]), *sys.argv[2:])

"""The real service as a process: start it, wait for a condition, read its metrics, stop it."""

import asyncio
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import psutil
from prometheus_client.parser import text_string_to_metric_families

ROOT = Path(__file__).parents[2]


def until(condition: Callable[[], Any], seconds: float = 60, what: str = "condition") -> Any:
    """Poll `condition` until it returns something true, and return that. Fail after `seconds`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if result := condition():
            return result
        time.sleep(0.01)
    raise AssertionError(f"no {what} within {seconds} s")


async def eventually(condition: Callable[[], Any], seconds: float = 30) -> None:
    """Let the event loop run until `condition` holds. Fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - the code under test sets no event for a test
            await asyncio.sleep(0.001)


def is_running(process: psutil.Process) -> bool:
    """Return whether a process exists and is no zombie: init may take seconds to reap the dead it adopts."""
    try:
        return bool(process.status() != psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return False


class Service:
    """A running service at `url`, with an HTTP client for it."""

    def __init__(self, process: subprocess.Popen[str], url: str, **client: Any) -> None:
        self.process = process
        self.url = url
        self.client = httpx.Client(base_url=url, timeout=60, **client)

    def state(self, variant: str) -> str:
        """Return the variant's state, as /variants tells it."""
        cards = self.client.get("/variants").json()["variants"]
        return next(str(card["state"]) for card in cards if card["name"] == variant)

    def sample(self, name: str, **labels: str) -> float:
        """Return the value of one series of /metrics; 0 if it does not exist."""
        for family in text_string_to_metric_families(self.client.get("/metrics").text):
            for sample in family.samples:
                if sample.name == name and labels.items() <= sample.labels.items():
                    return float(sample.value)
        return 0.0

    def outcomes(self, variant: str, since: dict[str, int] | None = None) -> dict[str, int]:
        """Return outcome -> count of `precision_requests_total`, without zeros, less the earlier counts `since`."""
        counts = Counter[str]()
        for family in text_string_to_metric_families(self.client.get("/metrics").text):
            for sample in family.samples:
                if sample.name == "precision_requests_total" and sample.labels["variant"] == variant and sample.value:
                    counts[sample.labels["outcome"]] = int(sample.value)
        return dict(counts - Counter(since))

    def children(self) -> list[psutil.Process]:
        """Return all processes of the service but its HTTP process."""
        return psutil.Process(self.process.pid).children(recursive=True)

    def workers(self) -> list[psutil.Process]:
        """Return the worker processes."""
        return [child for child in self.children() if child.name().startswith("worker-")]

    def worker(self) -> psutil.Process:
        """Return the one worker process."""
        (worker,) = self.workers()
        return worker

    def stop(self, number: signal.Signals = signal.SIGTERM) -> int:
        """Send a signal and return the exit code. Fail if any process of the service is left."""
        children = self.children()
        self.process.send_signal(number)
        code = self.process.wait(30)
        until(lambda: not any(map(is_running, children)), 10, f"end of {children}")
        return code


@contextmanager
def running(
    *flags: str, module: str = "service", ready: bool = True, log: IO[str] | None = None, **client: Any
) -> Iterator[Service]:
    """Run a service on a free port for the block.

    Args:
        flags: of the command.
        module: the one that is run.
        ready: wait until every variant is ready, else only until the process answers.
        log: where its stderr goes.
        client: arguments of `Service.client`, an httpx.Client.
    """
    command = [sys.executable, "-m", module, "--port", "0", *flags]
    environment = os.environ | {"PYTHONUNBUFFERED": "1"}
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=log, text=True, env=environment)
    try:
        assert process.stdout is not None
        line = process.stdout.readline()
        match = re.search(r"https?://\S+", line)
        assert match, f"no address in {line!r}"
        service = Service(process, match.group(), **client)
        with service.client:
            until(lambda: _answers(service, "/health/ready" if ready else "/health/live"), 240, "ready service")
            yield service
            if process.poll() is None:
                service.stop()
    finally:
        if process.poll() is None:
            for child in psutil.Process(process.pid).children(recursive=True):
                child.kill()
            process.kill()
            process.wait()
        assert process.stdout is not None
        process.stdout.close()


def _answers(service: Service, path: str) -> bool:
    assert service.process.poll() is None, "the service ended"
    try:
        return service.client.get(path).status_code == 200
    except httpx.TransportError:
        return False

"""One start of a server: the seconds until it answers, and the memory of its processes after that."""

import http.client
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import psutil
from numpy.typing import NDArray
from prometheus_client.parser import text_string_to_metric_families

from benchmarks.wrk import ROOT, ended, free_port

BATCHES = range(1, 33)
"""The batch sizes that each server runs before its memory is read: those that the service serves by default."""
POLL_SECONDS = 0.05
"""Seconds between two questions. Each takes a millisecond of the cores that the start needs."""
PATIENCE = 180.0
"""Seconds after which a start counts as failed."""
Pixels = NDArray[np.uint8]
"""`[N, 3, 32, 32]`."""
HTTP, OTHERS = "HTTP process", "others"


class StartFailed(Exception):
    """A server did not start or answer; the text says why."""


@dataclass(frozen=True)
class Body:
    """The body of a request, and its content type."""

    data: bytes
    content_type: str


def raw(pixels: Pixels) -> Body:
    """Return `[N, 3, 32, 32] uint8` as raw bytes."""
    return Body(pixels.tobytes(), "application/octet-stream")


def tensor(pixels: Pixels) -> Body:
    """Return them as one tensor of the Open Inference Protocol, in JSON."""
    images = {"name": "images", "shape": pixels.shape, "datatype": "UINT8", "data": pixels.reshape(-1).tolist()}
    return Body(json.dumps({"inputs": [images]}).encode(), "application/json")


@dataclass(frozen=True)
class Server:
    """A server to start."""

    name: str
    command: Callable[[int], Sequence[str]]
    """Returns the whole command for a port."""
    ready: str
    """The path that answers 200 as soon as predictions may be sent."""
    paths: tuple[str, ...]
    """The paths of predictions, one for each network that it serves."""
    body: Callable[[Pixels], Body] = raw
    has_workers: bool = False
    """True for this service, whose metrics tell the memory of its workers."""
    ports: int = 1
    """Ports in a row that it listens on, from the one that its command gets."""
    folder: Path = ROOT
    environment: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Memory:
    """Bytes of a process, or of several: `resident` counts shared pages in full, `proportional` a share of them."""

    resident: int = 0
    proportional: int = 0

    def __add__(self, other: "Memory") -> "Memory":
        return Memory(self.resident + other.resident, self.proportional + other.proportional)


@dataclass(frozen=True)
class Phases:
    """The seconds of a worker's start, as the worker measures them."""

    load: float
    """From the files to the compiled graph."""
    test: float
    """The self-test of 300 images, which runs each batch size, and the rest of the warm-up."""


@dataclass(frozen=True)
class Start:
    """The seconds from the start of the process to readiness, and to the first prediction of each network."""

    ready: float
    predicted: float


@dataclass(frozen=True)
class Running:
    """A server that runs on a port."""

    server: Server
    process: subprocess.Popen[bytes]
    port: int
    log: Path

    def status(self, method: str, path: str, body: Body | None = None) -> int:
        """Return the status of an answer, 0 if there is none yet.

        Raises:
            StartFailed: the process has ended.
        """
        if self.process.poll() is not None:
            lines = self.log.read_text(errors="replace").strip().splitlines()
            raise StartFailed(lines[-1] if lines else f"it ended with {self.process.returncode}")
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            headers = {"Content-Type": body.content_type} if body else {}
            connection.request(method, path, body.data if body else None, headers)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()

    def wait(self, method: str, path: str, body: Body | None = None) -> None:
        """Return once the answer is 200.

        Raises:
            StartFailed: it is not within PATIENCE, or the process ends.
        """
        deadline = time.monotonic() + PATIENCE
        while (status := self.status(method, path, body)) != http.HTTPStatus.OK:
            if time.monotonic() > deadline:
                raise StartFailed(f"{path} did not answer 200 within {PATIENCE:g} s (the last status is {status})")
            time.sleep(POLL_SECONDS)

    def predict(self, count: int) -> None:
        """Let each network classify a batch of `count` images."""
        pixels = np.random.default_rng(count).integers(0, 256, (count, 3, 32, 32), np.uint8)
        for path in self.server.paths:
            self.wait("POST", path, self.server.body(pixels))

    def workers(self) -> dict[str, psutil.Process]:
        """Return the worker process of each variant of this service; none of another server.

        The metrics tell the resident bytes of each variant's worker. The worker is the process nearest to them.
        """
        if not self.server.has_workers:
            return {}
        children = psutil.Process(self.process.pid).children(recursive=True)
        return {
            variant: min(children, key=lambda child, told=told: abs(child.memory_info().rss - told))  # type: ignore[misc]
            for variant, told in self._resident().items()
        }

    def phases(self) -> dict[str, Phases]:
        """Return, of each variant's worker, the seconds that its start took; none of another server."""
        if not self.server.has_workers:
            return {}
        cards = json.loads(self._get("/variants"))["variants"]
        return {card["name"]: Phases(card["load_seconds"], card["warmup_seconds"]) for card in cards}

    def worker_of_int8(self) -> psutil.Process:
        """Return the worker process of `int8`."""
        return self.workers()["int8"]

    def _resident(self) -> dict[str, float]:
        families = text_string_to_metric_families(self._get("/metrics"))
        samples = (sample for family in families for sample in family.samples)
        return {
            sample.labels["variant"]: sample.value
            for sample in samples
            if sample.name == "precision_memory_bytes" and sample.labels["kind"] == "rss"
        }

    def _get(self, path: str) -> str:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
        try:
            connection.request("GET", path)
            return connection.getresponse().read().decode()
        finally:
            connection.close()

    def memory(self) -> dict[str, Memory]:
        """Return the memory of the HTTP process, of each worker and of all other processes, by name."""
        process = psutil.Process(self.process.pid)
        names = {process.pid: HTTP} | {worker.pid: f"worker {name}" for name, worker in self.workers().items()}
        found: dict[str, Memory] = {}
        for one in (process, *process.children(recursive=True)):
            name, info = names.get(one.pid, OTHERS), one.memory_full_info()
            found[name] = found.get(name, Memory()) + Memory(info.rss, info.pss)
        return found


@contextmanager
def started(server: Server, log: Path) -> Iterator[tuple[Running, Start]]:
    """Start a server and wait for its first predictions; end it after the block. `log` takes what it writes.

    Raises:
        StartFailed: it does not start or answer.
    """
    port = free_port(server.ports)
    with log.open("wb") as output:
        began = time.perf_counter()
        process = subprocess.Popen(
            server.command(port), cwd=server.folder, env=os.environ | server.environment, start_new_session=True,
            stdout=output, stderr=output,
        )  # fmt: skip
    with ended(process):
        running = Running(server, process, port, log)
        running.wait("GET", server.ready)
        ready = time.perf_counter() - began
        running.predict(1)
        yield running, Start(ready, time.perf_counter() - began)


def drop_caches() -> str:
    """Let the kernel forget the contents of files; return how: all of them as root, else those of Python and here."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3")
    except OSError:
        for folder in (sys.prefix, sys.base_prefix, ROOT):
            for path in filter(Path.is_file, Path(folder).rglob("*")):
                _forget(path)
        return "posix_fadvise(DONTNEED) on each file of Python, its packages and the checkout"
    return "/proc/sys/vm/drop_caches"


def _forget(path: Path) -> None:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except OSError:
        return
    try:
        os.posix_fadvise(descriptor, 0, 0, os.POSIX_FADV_DONTNEED)
    finally:
        os.close(descriptor)

"""The benchmark of starts: a small server is timed and measured, a death is noticed, goals are judged."""

import asyncio
import math
import sys
import time
from pathlib import Path

import psutil
import pytest

from benchmarks import revival, startup_tables
from benchmarks.arrivals import Target
from benchmarks.starting import HTTP, OTHERS, Memory, Server, Start, StartFailed, started
from benchmarks.startup_tables import Measured
from tests.service.processes import is_running

SERVER = """
import subprocess, sys, threading, time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
echo = "import sys\\nfor line in sys.stdin: print(line, end='', flush=True)"
worker = subprocess.Popen([sys.executable, "-c", echo], stdin=subprocess.PIPE, stdout=subprocess.PIPE, bufsize=0)
ready_at, died, lock = time.monotonic() + 0.3, [], threading.Lock()
def is_there():
    with lock:
        try:
            if worker.stdin.write(b"x\\n") and worker.stdout.readline():
                return True
        except BrokenPipeError:
            pass
        died.append(time.monotonic())
        return time.monotonic() > died[0] + 0.5
class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def answer(self):
        self.rfile.read(int(self.headers.get("content-length", 0)))
        refuses = time.monotonic() < ready_at or self.path == "/lost" and not is_there()
        self.send_response(503 if refuses else 200)
        self.send_header("Content-Length", "0")
        self.end_headers()
    do_GET = do_POST = answer
    def log_message(self, *args):
        pass
ThreadingHTTPServer(("127.0.0.1", int(sys.argv[1])), Handler).serve_forever()
"""
"""A server that is ready after 0.3 s. Its worker process answers /lost; without it, that takes 0.5 s."""


def server(code: str) -> Server:
    """Return a server that is a program of Python; its argument is the port."""
    return Server("small", lambda port: (sys.executable, "-c", code, str(port)), "/health", ("/predict",))


def test_a_start_is_timed_and_its_processes_are_measured(tmp_path: Path) -> None:
    """A 503 is no readiness; each process counts once; none is left."""
    with started(server(SERVER), tmp_path / "log") as (running, start):
        processes = psutil.Process(running.process.pid).children()
        memory = running.memory()
    assert 0.3 < start.ready <= start.predicted < 30
    assert set(memory) == {HTTP, OTHERS}
    assert all(1e6 < of.proportional <= of.resident < 1e9 for of in memory.values())
    assert not any(map(is_running, processes))


def test_a_server_that_ends_has_failed(tmp_path: Path) -> None:
    """The reason is the last line that it wrote."""
    with (
        pytest.raises(StartFailed, match="no network there"),
        started(server("import sys; print('hello'); sys.exit('no network there')"), tmp_path / "log"),
    ):
        raise AssertionError("it did not start")


@pytest.mark.parametrize(("limit", "is_back"), [(60, True), (0.2, False)])
def test_the_time_without_a_worker_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: float, is_back: bool
) -> None:
    """A variant is away for at least the half second that its server refuses it; for ever if the limit is shorter."""
    monkeypatch.setattr(revival, "CALM_SECONDS", 0.1)
    monkeypatch.setattr(revival, "LIMIT_SECONDS", limit)
    with started(server(SERVER), tmp_path / "log") as (running, _):
        url = f"http://127.0.0.1:{running.port}"
        targets = {path: Target(url + path, b"", "image/png") for path in ("/lost", "/other")}
        (worker,) = psutil.Process(running.process.pid).children()
        began = time.monotonic()
        away = asyncio.run(revival.seconds_away(targets, "/lost", lambda: worker))
        assert 0.5 <= away <= time.monotonic() - began if is_back else away == math.inf


def test_a_goal_is_judged_by_the_median() -> None:
    """One slow start of three does not change the verdict; two do."""
    memory = [{"worker int8": Memory(169_000_000, 1)}] * 3

    def verdict(*ready: float) -> list[str]:
        measured = {startup_tables.INT8: Measured(warm=[Start(s, s) for s in ready], memory=memory)}
        return [line.split(" | ")[-1].strip(" |") for line in startup_tables.goals(measured, {}).splitlines()[2:]]

    assert verdict(2, 2, 9) == ["holds", "holds", "holds"]
    assert verdict(2, 9, 9) == ["holds", "holds", "**falls short**"]


def test_the_document_says_what_was_not_measured() -> None:
    """A server that did not start has a reason and no row."""
    measured = {"a": Measured(reason="no network there"), "b": Measured([Start(2, 3)], [Start(1, 1.5)])}
    text = startup_tables.document({"cpu": "a CPU"}, measured, {"b": [1.0, float("inf"), 2.0]})
    assert "- a: no network there" in text
    assert "| b | 1.0 | 1.5 | 2.0 | 3.0 |" in text
    assert "| b | 2.0 (1.0-inf) |" in text

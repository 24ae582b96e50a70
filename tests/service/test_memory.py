"""Memory of worker processes by kind."""

import os
import subprocess
import sys

import pytest

from models import nvml
from service.workers import memory
from service.workers.memory import Process


def test_a_process_on_the_cpu_has_two_kinds() -> None:
    """Shared pages in full are never less than by share."""
    kinds = memory.read(Process(os.getpid()))
    assert set(kinds) == {"rss", "pss"}
    assert kinds["rss"] >= kinds["pss"] > 1e6


def test_a_process_on_a_gpu_has_its_allocators_and_its_drivers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """The driver is asked about the worker's GPU and process."""
    asked = []
    monkeypatch.setattr(nvml, "memory", lambda uuid, pid: asked.append((uuid, pid)) or {"device_used": 9})
    kinds = memory.read(Process(os.getpid(), "GPU-1", {"allocated": 3, "reserved": 4}))
    assert asked == [("GPU-1", os.getpid())]
    assert (kinds["allocated"], kinds["reserved"], kinds["device_used"]) == (3, 4, 9)


def test_a_process_that_is_gone_has_none() -> None:
    """A worker may die between the look and the reading."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert memory.read(Process(ended.pid)) == {}

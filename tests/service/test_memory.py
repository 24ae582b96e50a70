"""Memory of worker processes by kind."""

import os
import subprocess
import sys

import pytest

from models import nvml
from service.workers import memory
from service.workers.memory import Process


def test_a_process_on_the_cpu_has_two_kinds() -> None:
    """A process on the CPU has rss and pss, and rss is the larger one."""
    kinds = memory.read(Process(os.getpid()))
    assert set(kinds) == {"rss", "pss"}
    assert kinds["rss"] >= kinds["pss"] > 1e6


def test_a_process_on_a_gpu_has_its_allocators_and_its_drivers_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process on a GPU has the allocator's numbers, and the driver's for its GPU and process id."""
    asked = []
    monkeypatch.setattr(nvml, "memory", lambda uuid, pid: asked.append((uuid, pid)) or {"device_used": 9})
    kinds = memory.read(Process(os.getpid(), "GPU-1", {"allocated": 3, "reserved": 4}))
    assert asked == [("GPU-1", os.getpid())]
    assert (kinds["allocated"], kinds["reserved"], kinds["device_used"]) == (3, 4, 9)


def test_a_process_that_is_gone_has_none() -> None:
    """A process that ended has no memory, as a worker may die before it is read."""
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert memory.read(Process(ended.pid)) == {}

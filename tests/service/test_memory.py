"""Memory of worker processes by kind."""

import asyncio
import os
import subprocess
import sys

import pytest

from models import nvml
from service.workers import memory
from service.workers.memory import Process, Readings


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


def test_a_reading_stands_for_a_second_unless_a_worker_is_new(monkeypatch: pytest.MonkeyPatch) -> None:
    """Readings in quick succession read each process once; a process that is not known yet is read at once."""
    asked: list[int] = []
    monkeypatch.setattr(memory, "read", lambda process: asked.append(process.pid) or {"rss": process.pid})
    workers = {"fp32": [Process(1), Process(2)]}
    readings = Readings(lambda: workers)

    async def refreshed(times: int) -> dict[str, dict[str, int]]:
        for _ in range(times):
            await readings.refresh()
        return readings.totals()

    assert asyncio.run(refreshed(3)) == {"fp32": {"rss": 3}}
    assert asked == [1, 2]
    workers["int8"] = [Process(4)]
    assert asyncio.run(refreshed(3)) == {"fp32": {"rss": 3}, "int8": {"rss": 4}}
    assert asked == [1, 2, 1, 2, 4]
    del workers["fp32"]
    assert readings.totals() == {"int8": {"rss": 4}}

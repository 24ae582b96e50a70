"""What is said of a worker process that ended by itself."""

import asyncio
import os
import signal

import pytest

from service.workers import death
from service.workers.death import CAUSES, Death, Watch, named

MIB = 2**20


@pytest.mark.parametrize(
    ("exit_code", "cause"),
    [(-signal.SIGKILL, "SIGKILL"), (-signal.SIGSEGV, "SIGSEGV"), (3, "exit"), (0, "exit"), (-signal.SIGRTMAX, "other"),
     (-99, "other"), (None, "other")],
)  # fmt: skip
def test_an_exit_code_has_a_cause(exit_code: int | None, cause: str) -> None:
    """A signal's name, `exit`, or `other`; each of them is a value of the metric's label."""
    assert named(exit_code) == cause
    assert cause in CAUSES


@pytest.mark.parametrize(("kills", "cause"), [((4, 4), "SIGKILL"), ((4, 5), "out_of_memory")])
def test_the_kernel_says_whether_it_lacked_memory(
    monkeypatch: pytest.MonkeyPatch, kills: tuple[int, int], cause: str
) -> None:
    """A SIGKILL counts as lack of memory if the cgroup's count of such kills grew; the size is that of the process."""
    counts = iter(kills)
    monkeypatch.setattr(death.cgroup, "oom_kills", lambda: next(counts))
    monkeypatch.setattr(death.cgroup, "memory_limit", lambda: 900 * MIB)

    async def watched() -> Death:
        watch = Watch(os.getpid())
        watch.stop()
        return watch.death(-signal.SIGKILL)

    found = asyncio.run(watched())
    assert (found.cause, found.memory_limit_bytes) == (cause, 900 * MIB)
    assert found.resident_bytes > 10 * MIB


KILLED = "the kernel killed it (SIGKILL) because its cgroup was out of memory"


@pytest.mark.parametrize(
    ("cause", "exit_code", "how"),
    [("out_of_memory", -9, KILLED), ("SIGSEGV", -11, "SIGSEGV"), ("exit", 4, "it exited with status 4"),
     ("other", None, "the cause is unknown")],
)  # fmt: skip
@pytest.mark.parametrize(
    ("limit", "within"),
    [(1024 * MIB, "the cgroup's memory limit is 1024 MiB"), (None, "its cgroup has no memory limit")],
)
def test_a_death_is_told_in_words(cause: str, exit_code: int | None, how: str, limit: int | None, within: str) -> None:
    """The text, which the log and /variants show, has the cause, the size and the limit."""
    found = Death(cause, exit_code, 800 * MIB, limit)
    assert str(found) == f"the worker died: {how}; it had up to 800 MiB resident, and {within}"

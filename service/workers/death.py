"""Why a worker process ended by itself: its signal or exit status, its memory, and the memory limit that it had."""

import asyncio
import multiprocessing
import re
import signal
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

from common import cgroup

WATCH_SECONDS = 1.0
ENDING_SECONDS = 0.5
"""The time in which a process that lost its socket ends by itself."""
OUT_OF_MEMORY, EXIT, OTHER = "out_of_memory", "exit", "other"
SIGNALS = ("SIGKILL", "SIGSEGV", "SIGABRT", "SIGBUS", "SIGILL", "SIGFPE", "SIGTERM")
CAUSES = (OUT_OF_MEMORY, EXIT, *SIGNALS, OTHER)
"""The causes of a death, which are a metric's label: the kernel's lack of memory, an exit status, a signal's name."""
MIB = 2**20


@dataclass(frozen=True)
class Death:
    """The end of a process that nobody asked for."""

    cause: str
    """One of CAUSES."""
    exit_code: int | None
    """The exit status, or the negative number of the signal; None if the process did not end within half a second."""
    resident_bytes: int
    """The largest resident size, read when the worker became ready and up to a second before the end; 0 if unknown."""
    memory_limit_bytes: int | None
    """The least memory limit of the cgroups; None if there is none."""

    def __str__(self) -> str:
        how = {
            OUT_OF_MEMORY: "the kernel killed it (SIGKILL) because its cgroup was out of memory",
            EXIT: f"it exited with status {self.exit_code}",
            OTHER: "the cause is unknown" if self.exit_code is None else f"signal {-self.exit_code}",
        }.get(self.cause, self.cause)
        limit = self.memory_limit_bytes
        within = f"the cgroup's memory limit is {limit / MIB:.0f} MiB" if limit else "its cgroup has no memory limit"
        return f"the worker died: {how}; it had up to {self.resident_bytes / MIB:.0f} MiB resident, and {within}"


class Watch:
    """The largest resident size of a process. It is read while the process runs, because one that ended has none."""

    def __init__(self, pid: int) -> None:
        self._status = Path(f"/proc/{pid}/status")
        self._kills = cgroup.oom_kills()
        self._resident_bytes = 0
        self._read_again()

    def _read_again(self) -> None:
        self.read()
        self._timer = asyncio.get_running_loop().call_later(WATCH_SECONDS, self._read_again)

    def read(self) -> None:
        """Read the size now. It is read every second without this call."""
        with suppress(OSError):
            found = re.search(r"^VmHWM:\s*(\d+) kB", self._status.read_text(), re.MULTILINE)
            self._resident_bytes = int(found[1]) * 1024 if found else self._resident_bytes

    def stop(self) -> None:
        """Read no more."""
        self._timer.cancel()

    def death(self, exit_code: int | None) -> Death:
        """Return the death of the process, which ended with this code."""
        cause = OUT_OF_MEMORY if exit_code == -signal.SIGKILL and cgroup.oom_kills() > self._kills else named(exit_code)
        return Death(cause, exit_code, self._resident_bytes, cgroup.memory_limit())


def named(exit_code: int | None) -> str:
    """Return the cause that an exit code of multiprocessing stands for."""
    if exit_code is None:
        return OTHER
    if exit_code >= 0:
        return EXIT
    with suppress(ValueError):
        name = signal.Signals(-exit_code).name
        return name if name in SIGNALS else OTHER
    return OTHER


async def reap(process: multiprocessing.process.BaseProcess) -> int | None:
    """Return the exit code of a worker that lost its socket; kill it if it does not end, even if this is cancelled.

    The code is the negative number of the signal that ended it, and None if it was killed here. A process that cannot
    be killed (the kernel waits for a disk or a GPU) is waited for: a second one would hang, too.
    """
    try:
        await asyncio.to_thread(process.join, ENDING_SECONDS)
        exit_code = process.exitcode
    finally:
        process.kill()  # does nothing to a process that has ended
    await asyncio.to_thread(process.join)
    process.close()
    return exit_code

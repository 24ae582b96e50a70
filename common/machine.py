"""This machine: cores that the process may use, instruction sets, versions. Outside Linux some of it is unknown."""

import os
import platform
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from importlib import metadata
from pathlib import Path

from common.cgroup import cpu_quota

ISA_FLAGS = (
    "amx_fp16", "amx_bf16", "amx_int8", "avx512_fp16", "avx512_bf16", "avx512_vnni", "avx_vnni", "avx512f", "avx2",
    "asimdhp",
)  # fmt: skip
"""The kernel's names of the instruction sets that decide the speed of a precision, best first. `asimdhp` is ARM's."""
VNNI_FLAGS = frozenset({"amx_int8", "avx512_vnni", "avx_vnni"})
BF16_FLAGS = frozenset({"amx_bf16", "avx512_bf16"})
FP16_FLAGS = frozenset({"amx_fp16", "avx512_fp16"})
HIDDEN_BY_CAP = {
    **dict.fromkeys(("SSE41", "AVX", "AVX2", "AVX512_CORE"), VNNI_FLAGS | BF16_FLAGS | FP16_FLAGS),
    **dict.fromkeys(("AVX2_VNNI", "AVX2_VNNI_2", "AVX512_CORE_VNNI"), BF16_FLAGS | FP16_FLAGS),
    "AVX512_CORE_BF16": FP16_FLAGS,
}
"""The flags that oneDNN leaves unused, by the value of ONEDNN_MAX_CPU_ISA; higher values hide none of them:
https://uxlfoundation.github.io/oneDNN/dev_guide_cpu_dispatcher_control.html"""


KILL_FIRST_POINTS = 500
"""Thousandths of the memory limit that the kernel adds to what a process has, when it chooses which one to kill."""


def available_cores() -> int:
    """Return the cores that this process may use: its affinity, capped by the CPU quota of its cgroups; at least 1."""
    return max(1, min(affinity(), int(cpu_quota() or affinity())))


def affinity() -> int:
    """Return the number of cores that the kernel may run this thread on."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def share(index: int, processes: int) -> set[int]:
    """Return the cores of process number `index` when `processes` processes divide the cores of this one."""
    cores = sorted(os.sched_getaffinity(0))
    each = max(1, len(cores) // processes)
    first = index * each % len(cores)
    return set(cores[first : first + each])


@contextmanager
def bound_to(cores: set[int] | None) -> Iterator[None]:
    """Bind this thread, and the processes started meanwhile, to the cores; None changes nothing."""
    if cores is None or not hasattr(os, "sched_setaffinity"):
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cores)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def bind(cores: set[int] | None) -> None:
    """Bind this thread, and the threads and processes that it starts, to the cores; None changes nothing."""
    if cores is not None and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)


def name_process(name: str) -> None:
    """Show this name for the process in ps, top and the kernel's messages, cut to 15 characters. Only Linux does."""
    with suppress(OSError):
        Path("/proc/self/comm").write_text(name)


def lower_priority(pid: int, steps: int) -> None:
    """Let a new process, and the threads it starts from now on, be so many steps nicer than this one, 19 at most.

    Raises:
        OSError: the process has ended, or the system forbids the change.
    """
    os.setpriority(os.PRIO_PROCESS, pid, os.getpriority(os.PRIO_PROCESS, 0) + steps)


def kill_first(pid: int) -> None:
    """Let the kernel kill a new process before this one if memory runs out, however little the process has yet.

    Raises:
        OSError: the process has ended, or the system has no such setting.
    """
    own = int(Path("/proc/self/oom_score_adj").read_text())
    Path(f"/proc/{pid}/oom_score_adj").write_text(str(min(own + KILL_FIRST_POINTS, 1000)))


def yield_to_others(pid: int) -> None:
    """Let the process, and the threads it starts from now on, run only when the cores are idle (SCHED_IDLE).

    Raises:
        OSError: the process has ended, or the system forbids the change.
    """
    if hasattr(os, "SCHED_IDLE"):
        os.sched_setscheduler(pid, os.SCHED_IDLE, os.sched_param(0))


def flags(cpuinfo: Path = Path("/proc/cpuinfo")) -> frozenset[str]:
    """Return the CPU's feature flags as the kernel names them; none where it does not tell."""
    for line in _lines(cpuinfo):
        if line.startswith(("flags", "Features")):
            return frozenset(line.partition(":")[2].split())
    return frozenset()


def isa() -> str:
    """Return the instruction sets of ISA_FLAGS that the CPU has: `avx512_vnni+avx2`; `baseline` if it has none."""
    return "+".join(flag for flag in ISA_FLAGS if flag in flags()) or "baseline"


def usable_flags() -> frozenset[str]:
    """Return the CPU's feature flags without those that ONEDNN_MAX_CPU_ISA keeps oneDNN from using."""
    cap = os.environ.get("ONEDNN_MAX_CPU_ISA") or os.environ.get("DNNL_MAX_CPU_ISA") or ""
    return flags() - HIDDEN_BY_CAP.get(cap.upper(), frozenset())


def has_vnni() -> bool:
    """Return whether u8 x s8 products are summed in 32 bits. Without VNNI, sums of pairs in 16 bits can saturate."""
    return not VNNI_FLAGS.isdisjoint(usable_flags())


def name(cpuinfo: Path = Path("/proc/cpuinfo")) -> str:
    """Return the CPU's model name."""
    for line in _lines(cpuinfo):
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def describe(*packages: str) -> dict[str, str | int]:
    """Return the conditions of a published number: CPU, cores, system, and the versions of Python and `packages`."""
    return {
        "cpu": name(),
        "isa": isa(),
        "cores": available_cores(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        **{package: version(package) or "not installed" for package in packages},
    }


def version(package: str) -> str | None:
    """Return the version of an installed package, None if it is not installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None

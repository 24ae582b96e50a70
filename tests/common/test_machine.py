"""Cores and instruction sets, from invented files of the kernel. See test_cgroup.py for quotas."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

from common import machine


@pytest.mark.parametrize(("quota", "expected"), [(None, 8), (2.5, 2), (0.5, 1), (64.0, 8)])
def test_cores_are_the_affinity_within_the_quota(
    monkeypatch: pytest.MonkeyPatch, quota: float | None, expected: int
) -> None:
    """The available cores are the affinity, capped by the quota rounded down, at least one."""
    monkeypatch.setattr(machine.os, "sched_getaffinity", lambda _pid: set(range(8)), raising=False)
    monkeypatch.setattr(machine, "cpu_quota", lambda: quota)
    assert machine.available_cores() == expected


def test_flags_and_name_come_from_cpuinfo(tmp_path: Path) -> None:
    """Flags and name of the CPU are those of the first processor in cpuinfo; a missing file has no flags."""
    place = tmp_path / "cpuinfo"
    place.write_text(
        "processor\t: 0\nmodel name\t: Some CPU @ 2 GHz\nflags\t\t: fpu avx2 avx512_vnni\n\nprocessor\t: 1\n"
    )
    assert machine.flags(place) == {"fpu", "avx2", "avx512_vnni"}
    assert machine.name(place) == "Some CPU @ 2 GHz"
    assert machine.flags(tmp_path / "none") == frozenset()


@pytest.mark.parametrize(
    ("flags", "cap", "expected"),
    [
        ("avx2", "", False),
        ("avx2 avx_vnni", "", True),
        ("avx512_vnni", "AVX2", False),
        ("avx512_vnni", "AVX512_CORE_VNNI", True),
    ],
)
def test_vnni_must_be_there_and_allowed(monkeypatch: pytest.MonkeyPatch, flags: str, cap: str, expected: bool) -> None:
    """VNNI is there if the CPU has it and ONEDNN_MAX_CPU_ISA allows it."""
    monkeypatch.setattr(machine, "flags", lambda: frozenset(flags.split()))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    assert machine.has_vnni() == expected


@pytest.mark.parametrize(
    ("cap", "expected"),
    [
        ("", {"avx2", "avx512_vnni", "avx512_bf16", "avx512_fp16"}),
        ("AVX512_CORE_BF16", {"avx2", "avx512_vnni", "avx512_bf16"}),
        ("avx512_core_vnni", {"avx2", "avx512_vnni"}),
        ("AVX512_CORE", {"avx2"}),
    ],
)
def test_a_cap_of_onednn_hides_flags(monkeypatch: pytest.MonkeyPatch, cap: str, expected: set[str]) -> None:
    """The usable flags lack the instructions above ONEDNN_MAX_CPU_ISA."""
    monkeypatch.setattr(machine, "flags", lambda: frozenset({"avx2", "avx512_vnni", "avx512_bf16", "avx512_fp16"}))
    monkeypatch.setenv("ONEDNN_MAX_CPU_ISA", cap)
    assert machine.usable_flags() == expected


def test_processes_divide_the_cores(monkeypatch: pytest.MonkeyPatch) -> None:
    """Processes get equal, disjoint shares; more processes than cores get one core each, in turns."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {2, 3, 4, 7})
    assert [machine.share(index, 2) for index in range(2)] == [{2, 3}, {4, 7}]
    assert [machine.share(index, 5) for index in range(5)] == [{2}, {3}, {4}, {7}, {2}]


def test_a_process_started_on_some_cores_stays_there() -> None:
    """A process started within `bound_to` runs on its cores, and this process is free again afterwards."""
    before = os.sched_getaffinity(0)
    one = {min(before)}
    with machine.bound_to(one):
        child = subprocess.run(
            [sys.executable, "-c", "import os; print(os.sched_getaffinity(0))"],
            capture_output=True,
            text=True,
            check=True,
        )
    assert child.stdout.strip() == str(one)
    assert os.sched_getaffinity(0) == before


def test_a_process_binds_and_names_itself() -> None:
    """A process runs on the cores that it is bound to, and the kernel shows its name."""
    one = {min(os.sched_getaffinity(0))}
    asked = "print(os.sched_getaffinity(0), open('/proc/self/comm').read().strip())"
    code = f"import os; from common import machine; machine.bind({one}); machine.name_process('worker-int8'); {asked}"
    child = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert child.stdout.strip() == f"{one} worker-int8"


def test_a_description_names_cpu_and_versions() -> None:
    """The description of the machine has its CPU, its cores, and a version of each package that is asked for."""
    described = machine.describe("numpy", "no-such-package")
    assert described["cpu"] == machine.name()
    assert described["cores"] == machine.available_cores()
    assert described["numpy"] == machine.version("numpy")
    assert described["no-such-package"] == "not installed"

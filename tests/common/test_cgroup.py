"""The limits of this process's cgroups, from invented trees of the kernel's files."""

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from common.cgroup import cpu_quota, memory_limit, oom_kills

OWN = "from common.cgroup import cpu_quota; print(cpu_quota())"
V1 = Path("/sys/fs/cgroup/cpu")


def v2(quotas: Mapping[str, str], tmp_path: Path, group: str, root: str = "/") -> Path:
    """Return an invented /proc/self with the process in `group`; `quotas` has the content of cpu.max by folder."""
    place = tmp_path / "cgroup of v2"
    for folder, quota in quotas.items():
        (place / folder).mkdir(parents=True, exist_ok=True)
        (place / folder / "cpu.max").write_text(quota + "\n")
    escaped = str(place).replace(" ", "\\040")
    (tmp_path / "cgroup").write_text(f"0::{group}\n")
    (tmp_path / "mountinfo").write_text(
        "22 27 0:21 / /proc rw,relatime - proc proc rw\n"
        f"30 23 0:26 {root} {escaped} rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n"
    )
    return tmp_path


def v1(quotas: Mapping[str, str], tmp_path: Path, group: str, root: str = "/") -> Path:
    """Return an invented /proc/self of version 1, as systemd mounts it; `quotas` has the quota in us by folder."""
    place = tmp_path / "cpu,cpuacct"
    for folder, quota in quotas.items():
        (place / folder).mkdir(parents=True, exist_ok=True)
        (place / folder / "cpu.cfs_quota_us").write_text(quota + "\n")
        (place / folder / "cpu.cfs_period_us").write_text("100000\n")
    (tmp_path / "cgroup").write_text(f"5:cpuset:/elsewhere\n4:cpu,cpuacct:{group}\n1:name=systemd:{group}\n0::/\n")
    (tmp_path / "mountinfo").write_text(
        f"31 25 0:27 / {tmp_path}/cpuset rw - cgroup cgroup rw,cpuset\n"
        f"33 25 0:29 {root} {place} rw,nosuid shared:9 - cgroup cgroup rw,cpu,cpuacct\n"
    )
    return tmp_path


def test_no_cgroup_is_no_quota(tmp_path: Path) -> None:
    """Without the kernel's files there is no quota."""
    assert cpu_quota(tmp_path) is None


@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", None),
        ("150000 100000", 1.5),
        ("50000 100000", 0.5),
        ("20000 10000", 2),
        ("1 0", None),
        ("", None),
    ],
)
def test_the_quota_of_cgroup_v2(tmp_path: Path, quota: str, expected: float | None) -> None:
    """The quota of version 2 is the quotient of the numbers in cpu.max; `max` is no limit."""
    assert cpu_quota(v2({"": quota}, tmp_path, "/")) == expected


@pytest.mark.parametrize(("quota", "expected"), [("-1", None), ("200000", 2.0), ("100000", 1.0)])
def test_the_quota_of_cgroup_v1(tmp_path: Path, quota: str, expected: float | None) -> None:
    """The quota of version 1 is the quotient of two files; -1 is no limit."""
    assert cpu_quota(v1({"": "-1", "user.slice": quota}, tmp_path, "/user.slice")) == expected


def test_systemds_quota_of_a_service(tmp_path: Path) -> None:
    """CPUQuota=100% of a systemd service lies in the service's own group; the root group has no cpu.max."""
    quotas = {"system.slice": "max 100000", "system.slice/precision.service": "100000 100000"}
    assert cpu_quota(v2(quotas, tmp_path, "/system.slice/precision.service")) == 1


@pytest.mark.parametrize(("version", "period"), [(v2, " 100000"), (v1, "")])
@pytest.mark.parametrize(("outer", "inner", "expected"), [(300000, 100000, 1), (100000, 300000, 1), (250000, 0, 2.5)])
def test_the_tightest_group_counts(tmp_path: Path, version, period: str, outer: int, inner: int, expected: int) -> None:
    """The least quota of the group and its parents counts, whichever of them has it; siblings do not count."""
    unlimited = f"max{period}" if period else "-1"
    quotas = {
        "a": f"{outer}{period}",
        "a/b": unlimited,
        "a/b/c": f"{inner}{period}" if inner else unlimited,
        "a/sibling": f"10000{period}",
    }
    assert cpu_quota(version(quotas, tmp_path, "/a/b/c")) == expected


@pytest.mark.parametrize(("version", "quota"), [(v2, "100000 100000"), (v1, "100000")])
def test_a_container_sees_its_group_as_root(tmp_path: Path, version, quota: str) -> None:
    """In a container with names of its own the group is `/`, and the mount itself has the quota."""
    assert cpu_quota(version({"": quota}, tmp_path, "/")) == 1


@pytest.mark.parametrize(("version", "quota"), [(v2, "100000 100000"), (v1, "100000")])
@pytest.mark.parametrize(
    ("group", "root"),
    [
        ("/docker/1234", "/docker/1234"),  # the host's names, the container's group mounted
        ("/docker/1234", "/"),  # the host's names, a mount that does not show them
        ("/../5678", "/"),  # a process that was moved outside of the names' root
        ("/", "/../.."),  # a mount from outside of the names' root
    ],
)
def test_a_container_with_the_hosts_names(tmp_path: Path, version, quota: str, group: str, root: str) -> None:
    """In a container that shares the host's names of groups, the mount stands for the container's group."""
    assert cpu_quota(version({"": quota}, tmp_path, group, root)) == 1


def test_a_group_below_a_containers(tmp_path: Path) -> None:
    """A group inside of a container's counts beside the container's own."""
    quotas = {"": "200000 100000", "worker": "100000 100000"}
    assert cpu_quota(v2(quotas, tmp_path, "/docker/1234/worker", "/docker/1234")) == 1


def test_both_versions_count(tmp_path: Path) -> None:
    """Where version 1 has the CPU and version 2 is mounted beside it, the quota of version 1 counts."""
    proc = v1({"": "-1", "a": "100000"}, tmp_path, "/a")
    (tmp_path / "unified").mkdir()
    with (proc / "mountinfo").open("a") as file:
        file.write(f"41 31 0:38 / {tmp_path}/unified rw - cgroup2 cgroup2 rw\n")
    assert cpu_quota(proc) == 1


def test_the_memory_limit_of_cgroup_v2(tmp_path: Path) -> None:
    """The least memory.max of the group and its parents counts, and the kills of the group itself."""
    proc = v2({"a": "max 100000", "a/b": "max 100000"}, tmp_path, "/a/b")
    place = tmp_path / "cgroup of v2"
    (place / "a" / "memory.max").write_text("1000000\n")
    (place / "a" / "memory.events").write_text("oom_kill 9\n")
    (place / "a" / "b" / "memory.max").write_text("max\n")
    (place / "a" / "b" / "memory.events").write_text("low 0\nhigh 0\nmax 5\noom 3\noom_kill 2\noom_group_kill 0\n")
    assert (memory_limit(proc), oom_kills(proc)) == (1_000_000, 2)


@pytest.mark.parametrize(("limit", "expected"), [("9223372036854771712", None), ("1000000", 1_000_000)])
def test_the_memory_limit_of_cgroup_v1(tmp_path: Path, limit: str, expected: int | None) -> None:
    """Version 1 has a number even without a limit."""
    place = tmp_path / "memory"
    place.mkdir()
    (place / "memory.limit_in_bytes").write_text(limit + "\n")
    (place / "memory.oom_control").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 2\n")
    (tmp_path / "cgroup").write_text("4:memory:/\n1:cpu:/\n0::/\n")
    (tmp_path / "mountinfo").write_text(f"33 25 0:29 / {place} rw shared:9 - cgroup cgroup rw,memory\n")
    assert (memory_limit(tmp_path), oom_kills(tmp_path)) == (expected, 2)


def test_without_the_kernels_files_there_is_no_memory_limit(tmp_path: Path) -> None:
    """Nothing is known, so nothing is said."""
    assert (memory_limit(tmp_path), oom_kills(tmp_path)) == (None, 0)


def test_a_real_group_limits_a_process() -> None:
    """A process that the kernel runs in a nested group of one CPU sees a quota of 1."""
    group = V1 / f"quota-test-{os.getpid()}"
    try:
        (group / "inner").mkdir(parents=True)
        (group / "cpu.cfs_quota_us").write_text("100000")
    except OSError as error:
        group.rmdir() if group.exists() else None
        pytest.skip(f"needs a writable cgroup of version 1 with the CPU controller: {error}")
    join = f"import os; open('{group}/inner/tasks', 'w').write(str(os.getpid())); "
    try:
        done = subprocess.run([sys.executable, "-c", join + OWN], capture_output=True, text=True, check=True)
    finally:
        (group / "inner").rmdir()
        group.rmdir()
    assert float(done.stdout) == 1

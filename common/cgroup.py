"""The limits of the cgroups that this process is in: version 1 and 2, nested, in a container or under systemd.

`/proc/self/cgroup` names the process's group in each hierarchy, and `/proc/self/mountinfo` says where the hierarchies
are mounted, and from which group on. https://docs.kernel.org/admin-guide/cgroup-v2.html
"""

import os
import re
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

PROC = Path("/proc/self")
NO_LIMIT = 2**60
"""Bytes from which on a memory limit of version 1, which always has a number, is none."""


@dataclass(frozen=True)
class Mount:
    """A mounted hierarchy that can set a limit."""

    is_v2: bool
    root: PurePosixPath
    """The group that appears at `place`; other than `/` in a container that shares the host's names of groups."""
    place: Path


def cpu_quota(proc: Path = PROC) -> float | None:
    """Return how many CPUs' time this process may use: the least quota of its groups and their parents; None without.

    Groups above those that a container sees cannot be read and do not count.
    """
    quotas = [
        quota
        for is_v2, folders in _hierarchies(proc, "cpu")
        for folder in folders
        if (quota := _quota(folder, is_v2=is_v2)) is not None
    ]
    return min(quotas, default=None)


def memory_limit(proc: Path = PROC) -> int | None:
    """Return the bytes that this process's groups may use: the least limit, as `cpu_quota` looks for it."""
    limits = [
        limit
        for is_v2, folders in _hierarchies(proc, "memory")
        for folder in folders
        if (limit := _number(folder / ("memory.max" if is_v2 else "memory.limit_in_bytes"))) and limit < NO_LIMIT
    ]
    return min(limits, default=None)


def oom_kills(proc: Path = PROC) -> int:
    """Return how many processes of this process's group the kernel killed for memory; 0 where it does not tell."""
    return sum(
        _number(folders[0] / ("memory.events" if is_v2 else "memory.oom_control"), "oom_kill ") or 0
        for is_v2, folders in _hierarchies(proc, "memory")
        if folders
    )


def _number(file: Path, key: str = "") -> int | None:
    """Return the number in the line that begins with the key; None if there is none."""
    values = [line.removeprefix(key) for line in _lines(file) if line.startswith(key)]
    return int(values[0]) if values and values[0].isdecimal() else None


def _hierarchies(proc: Path, controller: str) -> list[tuple[bool, list[Path]]]:
    """Return for each hierarchy that can limit the controller: whether it is version 2, and the group's folders."""
    mounts = list(_mounts(proc, controller))
    return [
        (is_v2, _folders(group, [mount for mount in mounts if mount.is_v2 == is_v2]))
        for is_v2, group in _own_groups(proc, controller).items()
    ]


def _own_groups(proc: Path, controller: str) -> dict[bool, PurePosixPath]:
    """Return the process's group in version 2 (True) and in version 1's hierarchy of the controller (False)."""
    found = {}
    for line in _lines(proc / "cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if (is_v2 := number == "0" and not controllers) or controller in controllers.split(","):
            found[is_v2] = PurePosixPath(group.removesuffix(" (deleted)"))
    return found


def _mounts(proc: Path, controller: str) -> Iterator[Mount]:
    for line in _lines(proc / "mountinfo"):
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), (after.split() + [""] * 3)[:3]
        if len(fields) > 4 and (kind == "cgroup2" or (kind == "cgroup" and controller in options.split(","))):
            yield Mount(kind == "cgroup2", PurePosixPath(_unescaped(fields[3])), Path(_unescaped(fields[4])))


def _folders(group: PurePosixPath, mounts: list[Mount]) -> list[Path]:
    """Return the folder of the group and those of its parents, up to the first mount that shows it.

    Where no mount shows it (a container may see its own group under another name), the first mount's longest tail of
    the group's name that exists stands for it; at least the mount itself.
    """
    for mount in mounts:
        if group.is_relative_to(mount.root) and (found := mount.place / group.relative_to(mount.root)).is_dir():
            return _up(found, mount.place)
    for mount in mounts:
        parts = [part for part in group.parts if part not in ("/", "..")]
        tails = (mount.place.joinpath(*parts[start:]) for start in range(len(parts) + 1))
        return next((_up(tail, mount.place) for tail in tails if tail.is_dir()), [])
    return []


def _up(folder: Path, top: Path) -> list[Path]:
    """Return the folder and its parents up to `top`."""
    return [folder, *(parent for parent in folder.parents if parent.is_relative_to(top))]


def _quota(folder: Path, *, is_v2: bool) -> float | None:
    """Return the quota of one group in CPUs, None if it has none."""
    with suppress(OSError, ValueError, ZeroDivisionError):
        if is_v2:
            quota, period = (folder / "cpu.max").read_text().split()
        else:
            quota, period = ((folder / f"cpu.cfs_{name}_us").read_text() for name in ("quota", "period"))
        cpus = int(quota) / int(period)  # "max" is no number, and -1 no limit
        return cpus if cpus > 0 else None
    return None


def _unescaped(text: str) -> str:
    r"""Return a path of mountinfo, in which a space is `\040`."""
    return re.sub(r"\\([0-7]{3})", lambda found: chr(int(found[1], 8)), text)


def _lines(path: Path) -> list[str]:
    try:
        return os.fsdecode(path.read_bytes()).splitlines()
    except OSError:
        return []

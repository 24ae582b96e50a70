"""The CPU quota of the cgroups that this process is in: version 1 and 2, nested, in a container or under systemd.

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


@dataclass(frozen=True)
class Mount:
    """A mounted hierarchy that can limit CPU time."""

    is_v2: bool
    root: PurePosixPath
    """The group that appears at `place`; other than `/` in a container that shares the host's names of groups."""
    place: Path


def cpu_quota(proc: Path = PROC) -> float | None:
    """Return how many CPUs' time this process may use: the least quota of its groups and their parents; None without.

    Groups above those that a container sees cannot be read and do not count.
    """
    own = _own_groups(proc)
    quotas = [
        quota
        for is_v2, group in own.items()
        for folder in _folders(group, [mount for mount in _mounts(proc) if mount.is_v2 == is_v2])
        if (quota := _quota(folder, is_v2=is_v2)) is not None
    ]
    return min(quotas, default=None)


def _own_groups(proc: Path) -> dict[bool, PurePosixPath]:
    """Return the process's group in version 2 (True) and in version 1's hierarchy of the CPU (False)."""
    found = {}
    for line in _lines(proc / "cgroup"):
        number, _, rest = line.partition(":")
        controllers, _, group = rest.partition(":")
        if (is_v2 := number == "0" and not controllers) or "cpu" in controllers.split(","):
            found[is_v2] = PurePosixPath(group.removesuffix(" (deleted)"))
    return found


def _mounts(proc: Path) -> Iterator[Mount]:
    for line in _lines(proc / "mountinfo"):
        before, _, after = line.partition(" - ")
        fields, (kind, _, options) = before.split(), (after.split() + [""] * 3)[:3]
        if len(fields) > 4 and (kind == "cgroup2" or (kind == "cgroup" and "cpu" in options.split(","))):
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

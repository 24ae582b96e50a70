"""What the load generator runs on."""

import os
import platform
import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Any


def fingerprint() -> dict[str, Any]:
    """Everything about this machine and process that can move a number of the client's side."""
    return {
        "os": platform.platform(),
        **cpu(),
        "cores": len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count(),
        "load_average": list(os.getloadavg()),
        "python": platform.python_version(),
        "locust": version("locust"),
        "gevent": version("gevent"),
        "git_revision": git_revision(),
    }


def cpu() -> dict[str, Any]:
    """The processor's name and flags, from `/proc/cpuinfo` where there is one."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return {"cpu": platform.processor() or platform.machine(), "cpu_flags": []}
    fields = dict(line.split(":", 1) for line in text.split("\n\n")[0].splitlines() if ":" in line)
    stripped = {key.strip(): value.strip() for key, value in fields.items()}
    flags = stripped.get("flags", stripped.get("Features", "")).split()
    return {"cpu": stripped.get("model name", platform.machine()), "cpu_flags": sorted(flags)}


def git_revision() -> str | None:
    """The commit that this package belongs to, with `-dirty` when files differ; None outside of a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        return (
            subprocess.run(  # noqa: S603 - a fixed command
                command, capture_output=True, text=True, check=True, timeout=10
            ).stdout.strip()
            or None
        )
    except (OSError, subprocess.SubprocessError):
        return None

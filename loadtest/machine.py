"""What the load generator runs on."""

import os
import subprocess
from pathlib import Path
from typing import Any

from common import machine


def fingerprint() -> dict[str, Any]:
    """Everything about this machine and process that can move a number of the client's side."""
    return machine.describe("locust", "gevent") | {
        "cpu_flags": sorted(machine.flags()),
        "load_average": list(os.getloadavg()),
        "git_revision": git_revision(),
    }


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

"""The description of the load generator's machine and process."""

import os
import subprocess
from pathlib import Path

from common import machine
from loadtest.report.document import Client


def fingerprint() -> Client:
    """Return all facts about this machine and process that can move a number of the client's side."""
    described = machine.describe("locust", "gevent")
    return Client(
        cpu=str(described["cpu"]),
        isa=str(described["isa"]),
        cores=int(described["cores"]),
        platform=str(described["platform"]),
        python=str(described["python"]),
        locust=str(described["locust"]),
        gevent=str(described["gevent"]),
        cpu_flags=tuple(sorted(machine.flags())),
        load_average=os.getloadavg(),
        git_revision=git_revision(),
    )


def git_revision() -> str | None:
    """Return the commit that this package belongs to, with `-dirty` if files differ; None outside of a repository."""
    command = ["git", "-C", str(Path(__file__).parent), "describe", "--always", "--dirty", "--abbrev=12", "--exclude=*"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=10)  # noqa: S603 - fixed
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip() or None

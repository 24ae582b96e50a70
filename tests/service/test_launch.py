"""How worker processes are started."""

import errno
import multiprocessing
import os
from pathlib import Path
from typing import NoReturn

import pytest

from service.settings import Settings
from service.workers import launch
from service.workers.launch import plan
from tests.service.fakes import FakeAPI

SHORTAGE = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))


class NoProcesses:
    """A context of multiprocessing on a machine that has no process to spare."""

    def Process(self, **arguments: object) -> NoReturn:  # noqa: N802 - multiprocessing's name
        raise SHORTAGE


def test_a_process_that_cannot_be_started_leaves_no_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """The supervisor gets the system's error, ahead and later, and every attempt closes both ends of its pair."""
    monkeypatch.setattr(launch.forks, "context", NoProcesses)
    planned = plan(Settings(variants=("int8",)), FakeAPI)
    (launcher,) = planned.launchers["int8"]
    before = len(list(Path("/proc/self/fd").iterdir()))
    with planned.started_ahead():
        for _ in range(2):
            with pytest.raises(OSError, match=os.strerror(errno.EAGAIN)):
                launcher()
    assert len(list(Path("/proc/self/fd").iterdir())) == before


def workers() -> set[int | None]:
    return {child.pid for child in multiprocessing.active_children() if child.name == "worker-int8"}


def test_a_process_that_was_started_ahead_is_taken_or_ended() -> None:
    """A launcher hands out the process that it started ahead, and then starts another; an untaken one is ended."""
    planned = plan(Settings(variants=("int8",)), FakeAPI)
    (launcher,) = planned.launchers["int8"]
    with planned.started_ahead():
        pass
    assert workers() == set()
    with planned.started_ahead():
        first, second = launcher(), launcher()
        assert workers() == {first.process.pid, second.process.pid}
    for process, link in (first, second):
        link.close()
        process.join(30)
    assert (first.process.exitcode, second.process.exitcode) == (0, 0)

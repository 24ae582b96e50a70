"""The fork server: a process that has imported what decoders and workers on a CPU run, and that forks them.

A fork takes milliseconds, and the processes share the memory of everything that was imported before.
"""

import multiprocessing
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext

PRELOADED = (
    "models.loading",
    "models.engines.on_cpu",
    "service.workers.loop",
    "service.decoders",
    "service.v2.tensors",
)
"""Modules that the forked processes run. Their import leaves no thread at a fork: OpenBLAS ends its own before one."""


def context() -> ForkServerContext:
    """Return the context whose processes the fork server forks."""
    found = multiprocessing.get_context("forkserver")
    found.set_forkserver_preload(list(PRELOADED))
    return found


def begin() -> None:
    """Start the fork server, which imports PRELOADED while this process goes on. Without this, the first fork waits."""
    context()
    forkserver.ensure_running()

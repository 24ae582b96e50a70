"""Processes that decode what clients send, each of which can be stopped.

Whatever a client can make expensive runs here and not in the HTTP process: no body holds the event loop or its
interpreter lock, a decoder that outlives its deadline is killed and replaced, and one that wants more memory than a
body may take is refused it by the kernel.
"""

import asyncio
import logging
import multiprocessing
import os
import resource
import warnings
from collections.abc import Callable
from concurrent.futures import TimeoutError as OutOfTime
from contextlib import suppress
from typing import Any, ParamSpec, TypeVar

from pebble import ProcessExpired, ProcessPool

from common import machine
from service.deadline import Deadline
from service.errors import ServiceError

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
PRELOADED = ["service.bodies", "service.v2.tensors"]
"""Modules that decoders run, loaded once by the server that they are forked from."""
NICENESS = 5
"""The priority of the process for heavy bodies, below everything else."""


class Heavy(Exception):
    """A body that costs more than an ordinary decoder may spend on it; raised by the work itself."""


class Lane:
    """Decoder processes of one kind, with the requests that wait for them in order of arrival."""

    def __init__(self, name: str, processes: int, memory_bytes: int, niceness: int = 0) -> None:
        self.name = name
        self.processes = processes
        self._places = asyncio.Semaphore(processes)
        self._limits = (memory_bytes, niceness)
        self._pool = self._started()

    def _started(self) -> ProcessPool:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(["__main__", *PRELOADED])
        return ProcessPool(self.processes, initializer=_confine, initargs=self._limits, context=context)

    async def run(self, deadline: Deadline, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns in a process of its own.

        Raises:
            ServiceError: the deadline's, `too_large` where memory is not enough, `overloaded` where no process can be
                started, `unacceptable` where the process ended over it, and what `work` raises.
        """
        with deadline.kept():
            async with asyncio.timeout(deadline.left), self._places:
                return await self._run(deadline, work, args, kwargs)

    async def _run(self, deadline: Deadline, work: Callable[..., T], args: Any, kwargs: Any) -> T:
        try:
            future = self._pool.schedule(work, args, kwargs, timeout=max(deadline.left, 0.001))
            answer: T = await asyncio.wrap_future(future)
        except OutOfTime:
            raise TimeoutError from None
        except MemoryError:
            detail = "decoding the body takes more memory than a request may use"
            raise ServiceError("too_large", detail) from None
        except ProcessExpired as error:
            logger.warning("a decoder ended over a body, with exit code %s", error.exitcode)
            raise ServiceError("unacceptable", "the process that decoded the body ended over it") from None
        except (OSError, RuntimeError) as error:
            logger.error("no decoder could be started: %s", error)
            self._replace()
            raise ServiceError("overloaded", "no process to decode the body could be started") from None
        return answer

    def _replace(self) -> None:
        with suppress(Exception):
            self._pool.stop()
        self._pool = self._started()

    async def start(self) -> None:
        """Start every process, so that the first requests find them."""
        await asyncio.gather(*(asyncio.wrap_future(self._pool.schedule(os.getpid)) for _ in range(self.processes)))

    async def stop(self) -> None:
        """End every process, whatever it does."""
        self._pool.stop()
        await asyncio.to_thread(self._pool.join)


class Decoders:
    """Two lanes: one process per core for bodies of ordinary cost, one process for the heavy ones.

    A heavy body never holds a place that an ordinary one needs, and waits only for other heavy ones.
    """

    def __init__(self, memory_bytes: int) -> None:
        self._ordinary = Lane("ordinary", machine.available_cores(), memory_bytes)
        self._heavy = Lane("heavy", 1, memory_bytes, NICENESS)

    async def run(self, deadline: Deadline, work: Callable[..., T], *args: Any) -> T:
        """Return `work(*args, is_heavy=...)`: first with False in the ordinary lane, after Heavy with True.

        Raises:
            ServiceError: see Lane.run.
        """
        try:
            return await self._ordinary.run(deadline, work, *args, is_heavy=False)
        except Heavy:
            return await self._heavy.run(deadline, work, *args, is_heavy=True)

    async def start(self) -> None:
        """Start every process of both lanes."""
        await asyncio.gather(self._ordinary.start(), self._heavy.start())

    async def stop(self) -> None:
        """End every process of both lanes."""
        await asyncio.gather(self._ordinary.stop(), self._heavy.stop())


def _confine(memory_bytes: int, niceness: int) -> None:
    """Limit this process's address space to what it has now and `memory_bytes` more."""
    warnings.filterwarnings("ignore", module="PIL")  # damaged metadata in a client's image is no news
    os.nice(niceness)
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - a kernel file
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory_bytes, now + memory_bytes))

"""Processes that decode what clients send, each of which can be stopped.

Whatever a client can make expensive runs here and not in the HTTP process: no body holds the event loop or its
interpreter lock, a decoder that outlives its deadline is killed and replaced, and one that wants more memory than a
body may take is refused it by the kernel.
"""

import asyncio
import logging
import math
import os
import resource
import signal
import time
import warnings
from collections.abc import Callable
from concurrent.futures import TimeoutError as OutOfTime
from contextlib import suppress
from dataclasses import replace
from typing import Any, ParamSpec, TypeVar

from pebble import ProcessExpired, ProcessPool

from common import machine
from service import forks
from service.deadline import Deadline
from service.decoding import Received
from service.errors import ServiceError
from service.images import LIGHT, ORDINARY, UNBOUNDED, Cost, Heavy, Limits
from service.settings import Settings

logger = logging.getLogger(__name__)

P = ParamSpec("P")
T = TypeVar("T")
BYTES_PER_PIXEL = 24
"""Bytes of all copies of an image that exist while it is converted, for each of its pixels."""
NICENESS = 5
"""The priority of the process for heavy bodies, below everything else."""


class Lane:
    """Decoder processes of one kind, with the requests that wait for them in order of arrival."""

    def __init__(self, name: str, processes: int, memory_bytes: int, niceness: int = 0) -> None:
        self.name = name
        self.processes = processes
        self._places = asyncio.Semaphore(processes)
        self._limits = (memory_bytes, niceness)
        self._pool = self._started()

    def _started(self) -> ProcessPool:
        return ProcessPool(self.processes, initializer=_confine, initargs=self._limits, context=forks.context())

    async def run(self, deadline: Deadline, work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        """Return what `work` returns in a process of its own.

        Raises:
            ServiceError: the deadline's, `too_large` where memory is not enough, `overloaded` where no process can be
                started, `unacceptable` where the process ended over it, and what `work` raises.
        """
        with deadline:
            async with asyncio.timeout(deadline.left), self._places:
                return await self._run(deadline, work, args, kwargs)

    async def _run(self, deadline: Deadline, work: Callable[..., T], args: Any, kwargs: Any) -> T:
        try:
            # No variable keeps the future: its error's traceback holds this frame, and so the body.
            answer: T = await asyncio.wrap_future(
                self._pool.schedule(work, args, kwargs, timeout=max(deadline.left, 0.001))
            )
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
    """The places where bodies are decoded, by cost.

    A light body is decoded at once, on the event loop. The ordinary lane has a process per core; a heavy body never
    holds a place there, and waits only for other heavy ones.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._limits = Limits(
            settings.max_images, settings.max_pixels, settings.max_parts, settings.max_body_bytes, settings.side,
            settings.resize,
        )  # fmt: skip
        lanes = {"ordinary": (ORDINARY, machine.available_cores(), 0), "heavy": (UNBOUNDED, 1, NICENESS)}
        self._lanes = [
            (replace(self._limits, cost=cost), Lane(name, processes, memory_bytes(settings, cost), niceness))
            for name, (cost, processes, niceness) in lanes.items()
        ]
        self._light = replace(self._limits, cost=LIGHT)

    async def decode(self, work: Callable[[Received, Limits], T], received: Received, deadline: Deadline) -> T:
        """Return `work(received, limits)`, done where its cost allows it.

        Raises:
            ServiceError: see Lane.run; `deadline` past `decode_timeout`.
        """
        with suppress(Heavy):
            return work(received, self._light)
        own = Deadline(time.perf_counter(), self._settings.decode_timeout, what="the images could not be decoded")
        until = deadline.or_sooner(own)
        for limits, lane in self._lanes[:-1]:
            with suppress(Heavy):
                return await lane.run(until, work, received, limits)
        limits, lane = self._lanes[-1]
        return await lane.run(until, work, received, limits)

    async def start(self) -> None:
        """Start every process."""
        await asyncio.gather(*(lane.start() for _, lane in self._lanes))

    async def stop(self) -> None:
        """End every process."""
        await asyncio.gather(*(lane.stop() for _, lane in self._lanes))


def memory_bytes(settings: Settings, cost: Cost) -> int:
    """Return what a decoder may need beyond its start: copies of the body, and of the largest image that is decoded.

    A 16-bit grey image with transparency needs most: 24 bytes for each of its pixels.
    """
    pixels = min(cost.pixels, settings.max_pixels)
    result = settings.max_images * math.prod(settings.shape)
    return int(BYTES_PER_PIXEL * pixels + 6 * settings.max_body_bytes + 4 * result)


def _confine(memory_bytes: int, niceness: int) -> None:
    """Prepare a decoder: limit its address space to what it has now and `memory_bytes` more."""
    machine.name_process("decoder")
    warnings.filterwarnings("ignore", module="PIL")  # damaged metadata in a client's image is no news
    for number in (signal.SIGINT, signal.SIGHUP):  # a terminal sends them to all; the service ends its decoders
        signal.signal(number, signal.SIG_IGN)
    os.nice(niceness)
    with open("/proc/self/statm") as statm:  # noqa: PTH123 - a kernel file
        now = int(statm.read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (now + memory_bytes, now + memory_bytes))

"""The seconds that a variant is away after the death of its worker, while clients ask for every variant."""

import asyncio
import math
import os
import signal
import time
from collections.abc import Callable, Mapping

import psutil

from benchmarks.arrivals import Target

CLIENTS = 8
"""Clients of each variant. Each sends again as soon as it has an answer or a refusal."""
CALM_SECONDS = 2.0
"""Seconds of load before the kill."""
LIMIT_SECONDS = 60.0


async def seconds_away(targets: Mapping[str, Target], variant: str, worker: Callable[[], psutil.Process]) -> float:
    """Return the seconds from SIGKILL of the variant's worker to its next 200; infinity if none comes in LIMIT_SECONDS.

    Args:
        targets: a request to each variant.
        variant: the one whose worker is killed.
        worker: finds that worker.
    """
    killed, answered = math.inf, asyncio.Event()
    ends: set[float] = set()

    async def client(target: Target) -> None:
        while not answered.is_set():
            reply = await target.ask()
            if target is targets[variant] and reply.status == 200 and reply.due > killed:
                ends.add(reply.due + reply.seconds)
                answered.set()

    async with asyncio.TaskGroup() as group:
        for target in targets.values():
            for _ in range(CLIENTS):
                group.create_task(client(target))
        await asyncio.sleep(CALM_SECONDS)
        process = await asyncio.to_thread(worker)
        killed = time.perf_counter()
        os.kill(process.pid, signal.SIGKILL)
        try:
            await asyncio.wait_for(answered.wait(), LIMIT_SECONDS)
        except TimeoutError:
            answered.set()
    for target in targets.values():
        target.close()
    away = min(ends, default=math.inf) - killed
    return away if away <= LIMIT_SECONDS else math.inf

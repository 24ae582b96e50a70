"""A service with default settings under more load than it can answer: `python -m benchmarks.overload`.

1. Capacity: the answers a second that 32 clients get who send again after each answer. Then requests come at random
   times (open, Poisson), at once and at three times the capacity. Goodput is the answers with status 200 a second.
   Recovery is the time from the last arrival until a single request takes at most twice its calm time again.
2. One variant's flood: the times of the other at 20 requests/s, alone, beside busy threads of another program, beside a
   variant that 32 clients keep busy, and beside one with arrivals at three times its capacity. The busy threads, one a
   core, show what sharing the cores costs: they use them as the other variant's worker would, and need nothing else.
3. Large requests: the times of single images at 20 requests/s, alone and beside 8 requests/s of 256 images.

A request is a 32x32 PNG of 2.4 KB. Times count from the moment at which a request was due. The generator runs on the
same cores. The output is the document docs/results/overload.md.
"""

import argparse
import asyncio
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import numpy as np
import uvloop

from benchmarks.arrivals import Reply, Target, arrive, circle, milliseconds, sent
from benchmarks.wrk import PACKAGES, Contender, free_port, png, process, wait_until_it_answers
from common import machine
from service.workers.launch import NICENESS

CLIENTS = 32
CALM_RATE = 20.0
"""Requests a second of the client whose times are watched."""
LARGE_RATE, LARGE_IMAGES = 8.0, 256
FACTORS = (1, 3)
PNG = png()
TABLES = ("arrivals", "beside", "large")
TITLE = "# More requests than a CPU can answer\n"
INTRODUCTION = """
A request is a 32x32 PNG of 2.4 KB. The generator is one process on the same cores, and its time counts: latency is
counted from the moment at which a request was due. `python -m benchmarks.overload` writes this document."""
ARRIVALS = """
Capacity is what 32 clients get who send again after each answer. Then requests come at random times, at once and at
three times that rate. Recovery is the time from the last arrival until a single request takes at most twice its calm
time.

| arrivals | capacity/s | goodput/s | share | p50 ms | p99 ms | refused (p50 ms) | Retry-After, s | other ends | recovery, s |
|---|---|---|---|---|---|---|---|---|---|"""  # noqa: E501 - a row of a table is a line
BESIDE = """
One variant at 20 requests/s beside load. The busy threads of another program, one a core and at the priority of a
worker, show what sharing the cores costs. "Kept busy" means 32 clients without overload. Three times the capacity adds
the refusals, and the generator, to what competes for the cores.

| at 20 requests/s | beside | answered | p50 ms | p99 ms |
|---|---|---|---|---|"""
LARGE = """
Single images beside 8 requests a second of 256 images, which are more than either variant can run on two cores. A
single image waits for the batch in hand and one batch of large requests ([the bound](../operations.md#overload)).

| single images | beside | answered | p50 ms | p99 ms | large, goodput images/s |
|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Calm:
    """What a client at CALM_RATE got: answers, requests, and the times of the answers in milliseconds."""

    answered: int
    asked: int
    p50: float
    p99: float

    def __str__(self) -> str:
        return f"{self.answered} of {self.asked} | {self.p50:,.1f} | {self.p99:,.0f} |"


@dataclass(frozen=True)
class Plan:
    """Where the service listens, and how long each load lasts, in seconds."""

    url: str
    seconds: float

    def target(self, variant: str) -> Target:
        """Return a single PNG for the variant."""
        return Target(f"{self.url}/predict/{variant}", PNG, "image/png")

    def large(self, variant: str) -> Target:
        """Return a request of LARGE_IMAGES raw images for the variant."""
        pixels = np.random.default_rng(0).integers(0, 256, (LARGE_IMAGES, 3, 32, 32), np.uint8)
        return Target(f"{self.url}/predict/{variant}", pixels.tobytes(), "application/octet-stream")


def goodput(replies: Sequence[Reply], seconds: float) -> float:
    """Return the answers a second."""
    return sum(reply.status == 200 for reply in replies) / seconds


async def capacity(plan: Plan, variant: str) -> float:
    """Return the answers a second of clients that keep the variant busy, after a second of warm-up."""
    await circle(plan.target(variant), CLIENTS, 1)
    return goodput(await circle(plan.target(variant), CLIENTS, plan.seconds), plan.seconds)


async def recovery(target: Target, calm_milliseconds: float) -> float:
    """Return the seconds until a request, sent again after each answer, takes at most twice its calm time."""
    began = time.perf_counter()
    while True:
        reply = await target.ask()
        if reply.status == 200 and reply.seconds * 1000 <= 2 * calm_milliseconds:
            return time.perf_counter() - began
        await asyncio.sleep(0.01)


async def overload_row(plan: Plan, variant: str, most: float, factor: int, calm: float) -> str:
    """Return the row of a variant at `factor` times its capacity of `most` requests a second."""
    target = plan.target(variant)
    await sent(target, factor * most, plan.seconds)
    recovered = await recovery(plan.target(variant), calm)
    await target.settle()
    good = goodput(target.replies, plan.seconds)
    refused = [reply for reply in target.replies if reply.status == 503]
    others = len(target.replies) - len(refused) - sum(reply.status == 200 for reply in target.replies)
    waits = sorted({reply.retry_after for reply in refused})
    p50, p99 = (milliseconds(target.replies, percent) for percent in (50, 99))
    cost = f"{milliseconds_of(refused):.0f}" if refused else "-"
    return (
        f"| {variant}, {factor} x | {most:,.0f} | {good:,.0f} | {good / most:.0%} | {p50:,.0f} | {p99:,.0f} | "
        f"{len(refused) / len(target.replies):.0%} ({cost}) | {', '.join(map(str, waits)) or '-'} | {others} | "
        f"{recovered:.2f} |"
    )


def milliseconds_of(replies: Sequence[Reply]) -> float:
    """Return the median time of replies of any status."""
    return 1000 * statistics.median([reply.seconds for reply in replies])


async def overload_table(plan: Plan, most: Mapping[str, float], calm: Mapping[str, Calm]) -> None:
    """Print the table of arrivals."""
    print(ARRIVALS, flush=True)
    for variant, capable in most.items():
        for factor in FACTORS:
            print(await overload_row(plan, variant, capable, factor, calm[variant].p50), flush=True)


async def beside(plan: Plan, variant: str, load: Callable[[], Awaitable[object]] | None) -> Calm:
    """Return what the client at CALM_RATE gets while the load runs, from a second after the load's start on."""
    task = asyncio.ensure_future(load()) if load else None
    await asyncio.sleep(1)
    replies = await arrive(plan.target(variant), CALM_RATE, plan.seconds, seed=1)
    if task:
        await task
    answered = sum(reply.status == 200 for reply in replies)
    return Calm(answered, len(replies), *(milliseconds(replies, percent) for percent in (50, 99)))


@contextmanager
def burning() -> Iterator[None]:
    """Keep a thread per core busy at the priority of a worker while the block runs.

    Each is a session of its own: Linux may divide a core among sessions first, and the generator's must keep its part.
    """
    busy = ["nice", "-n", str(NICENESS), sys.executable, "-c", "while True: pass"]
    loops = [subprocess.Popen(busy, start_new_session=True) for _ in range(machine.available_cores())]
    try:
        yield
    finally:
        for loop in loops:
            loop.kill()
            loop.wait()


async def flood_table(plan: Plan, most: Mapping[str, float], calm: Mapping[str, Calm]) -> None:
    """Print each variant's times beside the load of the other, and how they compare with those beside busy threads."""
    print(BESIDE, flush=True)
    sentences = []
    for variant, other in zip(most, reversed([*most]), strict=True):
        print(f"| {variant} | nothing | {calm[variant]}", flush=True)
        with burning():
            shared = await beside(plan, variant, None)
        print(f"| {variant} | busy threads of another program | {shared}", flush=True)
        busy = await beside(plan, variant, partial(circle, plan.target(other), CLIENTS, plan.seconds + 1))
        print(f"| {variant} | {other} kept busy | {busy}", flush=True)
        flood = await beside(plan, variant, partial(arrive, plan.target(other), 3 * most[other], plan.seconds + 1))
        print(f"| {variant} | {other}, 3 x | {flood}", flush=True)
        sentences.append(
            f"Beside {other}'s flood, the p99 of {variant} is {flood.p99 / shared.p99:.1f} times that beside the busy "
            f"threads, and {flood.p99 / busy.p99:.1f} times that beside {other} kept busy."
        )
    print("", *sentences, sep="\n", flush=True)


async def large_table(plan: Plan, variants: Sequence[str], calm: Mapping[str, Calm]) -> None:
    """Print the times of single images beside large requests of the same variant."""
    print(LARGE, flush=True)
    for variant in variants:
        print(f"| {variant} | nothing | {calm[variant]} - |", flush=True)
        large = plan.large(variant)
        row = await beside(plan, variant, partial(arrive, large, LARGE_RATE, plan.seconds + 1))
        images = LARGE_IMAGES * goodput(large.replies, plan.seconds + 1)
        print(f"| {variant} | {LARGE_RATE:g}/s of {LARGE_IMAGES} | {row} {images:,.0f} |", flush=True)


async def tables(plan: Plan, variants: Sequence[str], only: Sequence[str]) -> None:
    """Print the tables that `only` names."""
    calm = {variant: await beside(plan, variant, None) for variant in variants}
    most = {variant: await capacity(plan, variant) for variant in variants} if {"arrivals", "beside"} & {*only} else {}
    if "arrivals" in only:
        await overload_table(plan, most, calm)
    if "beside" in only:
        await flood_table(plan, most, calm)
    if "large" in only:
        await large_table(plan, variants, calm)


def conditions(seconds: float) -> str:
    """Return the head of the document."""
    facts = ", ".join(f"{name} {value}" for name, value in machine.describe(*PACKAGES).items())
    served = f"default settings, the variants served side by side, {seconds:g} s a load"
    return f"{TITLE}\nConditions: {datetime.now(tz=UTC):%Y-%m-%d}, {facts}; {served}.\n{INTRODUCTION}"


def main(argv: list[str] | None = None) -> None:
    """Print the document: the conditions, then one Markdown table after another."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.overload", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=float, default=30, help="length of each load (%(default)g)")
    parser.add_argument("--variants", default="int8,fp32", help="two served variants to measure (%(default)s)")
    parser.add_argument("--only", default=",".join(TABLES), help="tables to print, comma-separated (%(default)s)")
    args = parser.parse_args(argv)
    variants, only, port = args.variants.split(","), args.only.split(","), free_port()
    if not {*only} <= {*TABLES}:
        parser.error(f"--only: expected names from: {', '.join(TABLES)}, got {args.only!r}")
    print(conditions(args.seconds), flush=True)
    with (
        Path(os.devnull).open("w") as nowhere,
        process("service", "--port", str(port), "--variants", args.variants, stderr=nowhere),
    ):
        plan = Plan(f"http://127.0.0.1:{port}", args.seconds)
        for variant in variants:
            wait_until_it_answers(Contender(variant, f"{plan.url}/predict/{variant}", PNG, "image/png"))
        uvloop.run(tables(plan, variants, only))


if __name__ == "__main__":
    main()

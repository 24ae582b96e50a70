"""Simulated services in virtual time, whose true speed is known. They play the rounds of the load test's plan."""

import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from heapq import heapify, heappop, heappush, heapreplace
from itertools import islice
from math import nan

from loadtest.analysis.statistics import quantile
from loadtest.client.description import VariantInfo
from loadtest.client.scrape import Scrape
from loadtest.plan import Arm, Round, Timing, Workload, blocks
from loadtest.records import Played, Request, Stretch

URL = "http://simulated"
SETTLE = 0.25
WARM_UP = 2.0
NOISE = 0.005
"""Standard deviation of the logarithm of a fixed service time."""
ROUND_NOISE = 0.01
"""Standard deviation of the logarithm of an arm's pace from round to round."""
DRIFT = 0.05
"""Standard deviation of the step that the logarithm of the machine's pace takes from block to block (a random walk)."""


@dataclass(frozen=True)
class Server:
    """A service with one FIFO queue. Each of `slots` takes up to `batch` waiting requests, for `seconds`."""

    seconds: float
    slots: int = 1
    batch: int = 1
    is_exponential: bool = False
    """True if service times are exponential (M/M/1), false if they are fixed but for NOISE (M/D/1)."""

    def work(self, rng: random.Random) -> float:
        """Return the seconds that one batch takes."""
        return self.seconds * (rng.expovariate(1.0) if self.is_exponential else rng.lognormvariate(0.0, NOISE))


@dataclass(frozen=True)
class Change:
    """A change of an arm's service times, which grow to `factor` times the first ones."""

    factor: float
    is_gradual: bool = True
    """True if they grow evenly over the run, false if they are longer in its last third only."""

    def pace(self, passed: float) -> float:
        """Return the factor on the service times after the share `passed` of the run."""
        grown = passed if self.is_gradual else float(passed >= 2 / 3)
        return 1.0 + (self.factor - 1.0) * grown


CONSTANT = Change(1.0)


def paces(rng: random.Random, count: int, drift: float) -> list[float]:
    """Return the factor on all service times in each block: a random walk that starts at 1."""
    made = [1.0]
    while len(made) < count:
        made.append(made[-1] * rng.lognormvariate(0.0, drift))
    return made


def arm(name: str) -> Arm:
    """Return a simulated arm."""
    return Arm(name, URL, name, VariantInfo(name, "ready"))


def play(
    servers: Mapping[Arm, Server],
    workloads: Sequence[Workload],
    *,
    rounds: int,
    seed: int,
    drift: float = DRIFT,
    changes: Mapping[Arm, Change] | None = None,
) -> list[Played]:
    """Return rounds of one second of every arm under every workload, in the order of the load test's plan."""
    rng = random.Random(seed)
    settle = {w: max(SETTLE, *(usual(server, w, seed) for server in servers.values())) for w in workloads}
    timings = {w: Timing(settle[w], 1.0, rounds) for w in workloads}
    plan = blocks(tuple(servers), timings, seed=seed, contended=False)
    made = []
    for machine, block in zip(paces(rng, rounds, drift), islice(plan, rounds), strict=True):
        for planned in block:
            change = (changes or {}).get(planned.arms[0], CONSTANT)
            pace = machine * change.pace(planned.block / rounds) * rng.lognormvariate(0.0, ROUND_NOISE)
            made.append(played(servers[planned.arms[0]], planned, pace, rng))
    return made


def usual(server: Server, workload: Workload, seed: int) -> float:
    """Return the p50 of the warm-up, for which a round settles at least."""
    planned = Round((arm("warm-up"),), workload, -1, 0.0, WARM_UP, seed)
    return quantile([r.latency for r in requests(server, planned, 1.0, random.Random(seed))], 0.5) or 0.0


def played(server: Server, planned: Round, pace: float, rng: random.Random) -> Played:
    """Return one round as the load generator records it."""
    (loaded,) = planned.arms
    sent = {loaded.name: requests(server, planned, pace, rng)}
    stretch = Stretch(planned.settle, planned.settle + planned.seconds, sent, lateness=(0.0,), starved=0, cpu=0.0)
    return Played(loaded, planned, stretch, Scrape({}), Scrape({}))


def requests(server: Server, planned: Round, pace: float, rng: random.Random) -> list[Request]:
    """Return all requests of one round, to the last answer.

    A batch begins when a slot is free and a request waits. All requests that came until then are known, since any other
    one follows the end of a batch that begins later.
    """
    closed = planned.settle + planned.seconds
    is_closed = planned.workload.rate is None
    waiting = arrivals(planned.workload, closed, rng)
    heapify(waiting)
    free = [0.0] * server.slots
    made: list[Request] = []
    while waiting:
        begin = max(free[0], waiting[0])
        end = begin + pace * server.work(rng)
        heapreplace(free, end)
        taken = 0
        while waiting and taken < server.batch and waiting[0] <= begin:
            due = heappop(waiting)
            taken += 1
            made.append(Request(len(made), due, due, end, 200, "", (0,), nan, nan, nan, nan))
        if is_closed and end < closed:
            for _ in range(taken):
                heappush(waiting, end)
    return made


def arrivals(workload: Workload, closed: float, rng: random.Random) -> list[float]:
    """Return the times at which a round's first requests come: all users at once, or Poisson arrivals to the end."""
    if workload.rate is None:
        return [0.0] * (workload.concurrency or 1)
    times = []
    due = rng.expovariate(workload.rate)
    while due < closed:
        times.append(due)
        due += rng.expovariate(workload.rate)
    return times

"""Searches for a service level (`--slo`) on simulated queues in virtual time, whose true limit is known."""

from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from tabulate import tabulate

from benchmarks.simulated import Server
from loadtest.slo.level import Found, Slo
from loadtest.slo.search import Probe, search
from loadtest.slo.turns import settling

Floats = NDArray[np.float64]
SETTLE = 0.25
"""Seconds that every run settles at least, as with the default flags."""
SHORTEST = 2.0
"""Seconds of the shortest run, as in a search on a real service."""
TRUTH_REQUESTS = 1_000_000
"""Simulated requests per load in the search for the true limit."""
TRUTH_HALVINGS = 10
CLOSE = 0.9
"""An answer within 10 % of the truth lies above this share of it."""


@dataclass(frozen=True)
class Queue:
    """A simulated service with one worker, and the level that it has to keep."""

    name: str
    server: Server
    slo: Slo

    @property
    def capacity(self) -> float:
        """The requests per second that the service answers at most."""
        return self.server.batch / self.server.seconds

    def slow(self, rate: float, seconds: float, settle: float, rng: np.random.Generator) -> Probe:
        """Return what a run at a rate sees: of the requests due after `settle`, those over the level."""
        due = poisson(rate, settle + seconds, rng)
        waited = (one_at_a_time if self.server.batch == 1 else in_batches)(self.server, due, rng)
        counted = waited[due >= settle]
        return Probe(len(counted), int(np.sum(counted > self.slo.seconds)))

    def truth(self) -> float:
        """Return the true limit, from long runs at the halved range of rates."""
        low, high = 0.0, self.capacity
        for _ in range(TRUTH_HALVINGS):
            middle = (low + high) / 2
            seen = self.slow(middle, TRUTH_REQUESTS / middle, 0.0, np.random.default_rng(1))
            low, high = (middle, high) if seen.over <= (1 - self.slo.q) * seen.requests else (low, middle)
        return (low + high) / 2


def p99(seconds: float) -> Slo:
    """Return the level `p99=...`."""
    return Slo("p99", 0.99, seconds)


QUEUES = (
    Queue("M/D/1, 10 ms, p99 within 100 ms", Server(0.01), p99(0.1)),
    Queue("M/M/1, mean 10 ms, p99 within 200 ms", Server(0.01, is_exponential=True), p99(0.2)),
    Queue("batches of 16 in 80 ms, p99 within 200 ms", Server(0.08, batch=16), p99(0.2)),
)


def poisson(rate: float, seconds: float, rng: np.random.Generator) -> Floats:
    """Return the times of Poisson arrivals within `seconds`."""
    times = np.sort(rng.uniform(0.0, seconds, rng.poisson(rate * seconds)))
    return np.asarray(times)


def one_at_a_time(server: Server, due: Floats, rng: np.random.Generator) -> Floats:
    """Return the seconds of each request from when it was due: Lindley's recursion, solved for all requests at once."""
    work = server.seconds * (rng.exponential(1.0, len(due)) if server.is_exponential else np.ones(len(due)))
    ended = np.cumsum(work)
    return np.asarray(ended + np.maximum.accumulate(due - (ended - work)) - due)


def in_batches(server: Server, due: Floats, rng: np.random.Generator) -> Floats:
    """Return the seconds of each request; a batch takes the requests that wait when it begins."""
    times, ends = due.tolist(), np.empty(len(due))
    first, free = 0, 0.0
    while first < len(times):
        begin = max(free, times[first])
        after = bisect_right(times, begin, first, min(first + server.batch, len(times)))
        free = begin + server.seconds
        ends[first:after] = free
        first = after
    return ends - due


def found(queue: Queue, seed: int) -> Found:
    """Return the result of one search."""
    rng = np.random.default_rng(seed)

    def probe(load: float, requests: float) -> Probe:
        seconds = max(SHORTEST, requests / load)
        return queue.slow(load, seconds, settling(SETTLE, seconds), rng)

    running = search(queue.slo, 1.1 * queue.capacity, probe)
    while True:
        try:
            next(running)
        except StopIteration as end:
            result: Found = end.value
            return result


def seconds(result: Found) -> float:
    """Return the counted seconds of all runs of a search."""
    return sum(max(SHORTEST, trial.requests / trial.load) for trial in result.tried)


@dataclass(frozen=True)
class Answers:
    """Shares of the searches on one queue, and their length."""

    close: float
    """The answer lies within 10 % of the true limit."""
    above: float
    """The answer lies above the true limit."""
    covered: float
    """The 95 % interval of the limit holds the truth."""
    requests: float
    """Requests of a search, the median."""


def answers(queue: Queue, seeds: Sequence[int]) -> Answers:
    """Return how the answers of one search per seed relate to the true limit."""
    truth, results = queue.truth(), [found(queue, seed) for seed in seeds]
    loads = np.array([result.load or 0.0 for result in results]) / truth
    bounds = np.array([(r.limit.low or 0.0, r.limit.high or np.inf) if r.limit else (0.0, np.inf) for r in results])
    return Answers(
        close=float(np.mean((loads >= CLOSE) & (loads <= 2 - CLOSE))),
        above=float(np.mean(loads > 1)),
        covered=float(np.mean((bounds[:, 0] <= truth) & (truth <= bounds[:, 1]))),
        requests=float(np.median([sum(trial.requests for trial in result.tried) for result in results])),
    )


def table(seeds: Sequence[int]) -> str:
    """Return the table of the searches: a row per queue."""
    rows = []
    for queue in QUEUES:
        a = answers(queue, seeds)
        shares = (f"{100 * share:.1f}" for share in (a.close, a.above, a.covered))
        rows.append((queue.name, *shares, f"{a.requests:,.0f}"))
    headers = ("service", "within 10 %", "above the truth", "interval covers", "requests (median)")
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)

"""The latencies that a run states of a service that stalls, in virtual time: a part of `benchmarks.coverage`."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from tabulate import tabulate

from loadtest.analysis.statistics import quantile
from loadtest.options import Options
from loadtest.plan import Workload
from loadtest.timing import timing

ARMS = 2
"""Arms that take turns, block by block. Only one of them is looked at, and the service stalls under both."""
LEVELS = (0.95, 0.99)


@dataclass(frozen=True)
class Stalling:
    """A service that answers at once, apart from the first `stall` seconds of every `period`: then it answers after."""

    period: float = 60.0
    stall: float = 5.0
    usual: float = 0.002
    """Seconds of an answer outside of a stall."""

    def wait(self, due: float) -> float:
        """Return the seconds that a request takes that is due at this time."""
        return self.usual + max(0.0, self.stall - due % self.period)

    def truth(self, q: float) -> float:
        """Return the quantile of the waits of requests that are due at any time alike."""
        return self.usual + max(0.0, self.stall - (1 - q) * self.period)


def stated(service: Stalling, options: Options, rate: float, seed: int) -> list[float]:
    """Return the quantiles at LEVELS that a run states of the first arm under Poisson arrivals at `rate`."""
    rng = random.Random(seed)
    rounds = timing(options, Workload(rate=rate), service.usual)
    began, waits = rng.uniform(0.0, service.period), []
    for number in range(ARMS * rounds.rounds):
        opened = began + rounds.settle
        closed = opened + rounds.seconds
        due = [began + offset for offset in arrivals(rate, closed - began, rng)]
        last = max((time + service.wait(time) for time in due), default=closed)
        waits += [service.wait(time) for time in due if time >= opened] if number % ARMS == 0 else []
        began = closed if options.continuous else max(closed, last)
    return [quantile(waits, q) or 0.0 for q in LEVELS]


def arrivals(rate: float, seconds: float, rng: random.Random) -> list[float]:
    """Return the times of Poisson arrivals."""
    times: list[float] = []
    due = rng.expovariate(rate)
    while due < seconds:
        times.append(due)
        due += rng.expovariate(rate)
    return times


def means(options: Options, seeds: Sequence[int], rate: float = 20.0) -> list[float]:
    """Return the means of the stated quantiles over one run for each seed."""
    return [float(mean) for mean in np.mean([stated(Stalling(), options, rate, seed) for seed in seeds], axis=0)]


def table(seeds: Sequence[int]) -> str:
    """Return the table of stated quantiles: a row for each mode, a column for each quantile."""
    short, on_end = (Options(urls=(), duration=600.0, continuous=flag) for flag in (False, True))
    rows = [
        ("the truth", *(Stalling().truth(q) for q in LEVELS)),
        ("`--continuous`, 16 blocks of 37.5 s", *means(on_end, seeds)),
        ("600 rounds of 1 s", *means(short, seeds)),
    ]
    return tabulate(rows, ("run", *(f"p{100 * q:.0f}, s" for q in LEVELS)), tablefmt="pipe", floatfmt=".3f")

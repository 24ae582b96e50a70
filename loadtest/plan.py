"""The plan of a run: arms, workloads, and rounds in balanced random order."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import count

from loadtest.client.description import VariantInfo
from loadtest.targets import PREDICT

UNKNOWN = "unknown"
"""The device of an arm whose service does not name it."""


@dataclass(frozen=True)
class Arm:
    """One side of the comparison: a variant of one service."""

    name: str
    url: str
    variant: str
    info: VariantInfo = field(compare=False)
    """The variant's row of `GET /variants` at the start of the run, or the like made of a model's metadata."""
    service: str = ""
    """The label of the service. Two labels may share a URL: then a service is compared with itself."""
    protocol: str = PREDICT
    asked: str = ""
    """The input in words, if it is a tensor of the Open Inference Protocol."""

    @property
    def device(self) -> str:
        """The device that the variant runs on, as the service names it; UNKNOWN if it does not."""
        return self.info.device or UNKNOWN

    @property
    def is_told(self) -> bool:
        """True if the service's metrics tell its side of the requests. The Open Inference Protocol has no metrics."""
        return self.protocol == PREDICT


@dataclass(frozen=True)
class Workload:
    """A kind of load. Closed: `concurrency` users without think time. Open: Poisson arrivals at `rate` per second."""

    concurrency: int | None = None
    rate: float | None = None

    @property
    def name(self) -> str:
        """The workload in words, such as `8 users` or `50 requests/s`."""
        if self.rate is not None:
            return f"{self.rate:g} requests/s"
        return f"{self.concurrency} user" + ("s" if self.concurrency != 1 else "")


@dataclass(frozen=True)
class Round:
    """One round: `settle` seconds that do not count, then `seconds` that do. Its arms are loaded together."""

    arms: tuple[Arm, ...]
    workload: Workload
    block: int
    settle: float
    seconds: float
    seed: int


@dataclass(frozen=True)
class Timing:
    """The rounds of one workload: how long each of them settles and counts, in seconds, and how many are planned."""

    settle: float
    seconds: float
    rounds: int


def orders(count: int, seed: int) -> Iterator[list[int]]:
    """Yield orders of `count` arms without end: a random one, the same backwards (ABBA), the next random one, ...

    Over each such pair every arm has the same mean position, so a linear drift of the machine hits all arms alike.
    """
    rng = random.Random(seed)
    while True:
        order = rng.sample(range(count), count)
        yield order
        yield order[::-1]


def blocks(
    arms: Sequence[Arm], timings: Mapping[Workload, Timing], *, seed: int, contended: bool
) -> Iterator[list[Round]]:
    """Yield blocks of rounds without end. In a block every workload meets every arm once (`contended`: all at once).

    A workload with fewer rounds than the others skips blocks at even distances. The workloads of every second block
    come in reverse order. So do the arms of a workload in every second block that it takes part in.
    """
    groups = [tuple(arms)] if contended else [(arm,) for arm in arms]
    drawn = {workload: orders(len(groups), seed) for workload in timings}
    most = planned(timings)
    for block in count():
        due = [w for w, t in timings.items() if (block + 1) * t.rounds // most > block * t.rounds // most]
        yield [
            Round(groups[index], workload, block, timings[workload].settle, timings[workload].seconds, seed + block)
            for workload in (due if block % 2 == 0 else due[::-1])
            for index in next(drawn[workload])
        ]


def planned(timings: Mapping[Workload, Timing]) -> int:
    """Return the number of blocks in which every workload gets its rounds."""
    return max(timing.rounds for timing in timings.values())

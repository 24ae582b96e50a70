"""What is sent to whom and when: arms, workloads, and rounds in balanced random order."""

import random
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Arm:
    """One side of the comparison: a variant behind a URL. `card` is its row of `GET /variants`."""

    name: str
    url: str
    variant: str
    card: Mapping[str, Any] = field(compare=False)
    service: str = ""
    """The label of the service; two of them may share a URL, to see how much the same thing differs from itself."""

    @property
    def device(self) -> str:
        """Where it runs, with the URL when that says more than the device."""
        return str(self.card.get("device") or "unknown")


@dataclass(frozen=True)
class Workload:
    """Either `concurrency` users without think time (closed), or Poisson arrivals at `rate` a second (open)."""

    concurrency: int | None = None
    rate: float | None = None

    @property
    def name(self) -> str:
        """How people say it."""
        if self.rate is not None:
            return f"{self.rate:g} requests/s"
        return f"{self.concurrency} user" + ("s" if self.concurrency != 1 else "")


@dataclass(frozen=True)
class Round:
    """`settle` seconds that do not count, then `seconds` that do. More than one arm: they are loaded together."""

    arms: tuple[Arm, ...]
    workload: Workload
    block: int
    settle: float
    seconds: float
    seed: int


def orders(count: int, seed: int) -> Iterator[list[int]]:
    """Orders of `count` arms without end: a random one, then the same backwards (ABBA), then the next random one.

    Over each pair of blocks every arm has the same mean position, so a linear drift of the machine hits all alike.
    """
    rng = random.Random(seed)
    while True:
        order = rng.sample(range(count), count)
        yield order
        yield order[::-1]


def blocks(
    arms: Sequence[Arm],
    workloads: Sequence[Workload],
    *,
    seconds: float,
    settle: Mapping[Workload, float],
    seed: int,
    contended: bool,
) -> Iterator[list[Round]]:
    """Blocks without end; in each, every workload meets every arm once (`contended`: all arms at once)."""
    groups = [tuple(arms)] if contended else [(arm,) for arm in arms]
    for block, order in enumerate(orders(len(groups), seed)):
        yield [
            Round(groups[index], workload, block, settle[workload], seconds, seed=seed + block)
            for workload in (workloads if block % 2 == 0 else workloads[::-1])
            for index in order
        ]

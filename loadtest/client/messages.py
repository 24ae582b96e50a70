"""The messages between the master and the workers of a load test over several processes or machines.

They travel as locust's messages, which hold plain values only: nothing of them is ever run.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from pydantic import TypeAdapter

from loadtest.client.wire import Wire
from loadtest.plan import Round, Workload
from loadtest.records import Request, Stretch


@dataclass(frozen=True)
class Hello:
    """The first message of a worker."""

    host: str
    pid: int
    source: str
    """The hash of the worker's load test: other code may keep other records."""

    @property
    def name(self) -> str:
        """The worker in words."""
        return f"{self.host}, process {self.pid}"


@dataclass(frozen=True)
class Setup:
    """All that a worker needs before the first round. It answers `Ready` when its users are connected."""

    wires: Mapping[str, Wire]
    """How each arm is asked, by its name."""
    users: int
    timeout: float
    first: int
    """The number of the first request of each arm, so that workers do not send the same images at once."""


@dataclass(frozen=True)
class Ready:
    """The answer to `Setup`."""


@dataclass(frozen=True)
class Rewind:
    """The order to let every arm begin with its first request again."""


@dataclass(frozen=True)
class Order:
    """The order to play a round, which begins when the message arrives."""

    number: int
    round: Round


@dataclass(frozen=True)
class Done:
    """The worker's part of a round. Its times are readings of the worker's own clock."""

    number: int
    stretch: Stretch


Content = Hello | Setup | Ready | Rewind | Order | Done
Kind = TypeVar("Kind", Hello, Setup, Ready, Rewind, Order, Done)
ADAPTERS: dict[type[Content], TypeAdapter[Any]] = {
    kind: TypeAdapter(kind) for kind in (Hello, Setup, Ready, Rewind, Order, Done)
}


def packed(content: Content) -> Any:
    """Return a message as plain values."""
    return ADAPTERS[type(content)].dump_python(content)


def unpacked(kind: type[Kind], data: Any) -> Kind:
    """Return the message in plain values that came over the network.

    Raises:
        pydantic.ValidationError: they are no message of this kind.
    """
    made: Kind = ADAPTERS[kind].validate_python(data)
    return made


@cache
def source() -> str:
    """Return the hash of the load test's code."""
    package = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()


def shares(planned: Round, workers: int) -> list[Round | None]:
    """Return each worker's part of a round; None for a worker without one, since there are fewer users than workers.

    Users are dealt out as evenly as possible, always to the same workers. Poisson arrivals are split into independent
    streams of an equal rate, whose sum has Poisson arrivals of the whole rate.
    """
    rate, users = planned.workload.rate, planned.workload.concurrency or 0
    if rate is not None:
        seeds = [planned.seed * workers + number for number in range(workers)]
        return [replace(planned, workload=Workload(rate=rate / workers), seed=seed) for seed in seeds]
    dealt = [users // workers + (number < users % workers) for number in range(workers)]
    return [replace(planned, workload=Workload(concurrency=share)) if share else None for share in dealt]


def merged(parts: Sequence[Stretch], opened: float) -> Stretch:
    """Return the record of a round that several workers played, on the master's clock: counting began at `opened`.

    Clocks of machines differ, so the times of each worker are moved by the difference between `opened` and the time at
    which the worker itself began to count. Latencies and shares of requests stay exactly what the worker measured.
    """
    requests = {
        arm: sorted((_moved(r, opened - part.opened) for part in parts for r in part.requests[arm]), key=_end)
        for arm in parts[0].requests
    }
    return Stretch(
        opened,
        opened + max(part.closed - part.opened for part in parts),
        requests,
        [late for part in parts for late in part.lateness],
        sum(part.starved for part in parts),
        max(part.cpu for part in parts),
    )


def _moved(request: Request, by: float) -> Request:
    return request._replace(intended=request.intended + by, start=request.start + by, end=request.end + by)


def _end(request: Request) -> float:
    return request.end

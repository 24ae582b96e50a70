"""The raw, unrounded records of requests and rounds."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple, Protocol

from loadtest.client.scrape import Scrape
from loadtest.energy import Energy
from loadtest.plan import Arm, Round, Workload

NEVER_SENT = "not sent: every user waited for an answer until the timeout of this request"
"""The error of a request that was due and that no user was free to send."""
UNANSWERED = "no answer: the request went on after its timeout"
"""The error of a request that neither got an answer nor failed within its timeout."""


class Request(NamedTuple):
    """One request. Times are readings of `time.perf_counter()` in seconds.

    `intended` is the time at which an open workload wanted to send it. `answer` holds a class index per image. `error`
    names the failure in words; it is empty for a good answer. The `server_*` times come from the body of the answer;
    they are NaN where it lacks them.
    """

    sequence: int
    intended: float
    start: float
    end: float
    status: int
    error: str
    answer: tuple[int, ...]
    batch_size: float
    server_total: float
    server_queue: float
    server_inference: float

    @property
    def latency(self) -> float:
        """Seconds from the intended start, so that waiting for a slow server counts (no coordinated omission)."""
        return self.end - self.intended

    @property
    def lateness(self) -> float:
        """Seconds from when the request was due until the load generator sent it; a part of the latency."""
        return self.start - self.intended

    def waited(self, timeout: float) -> float:
        """Return the latency; for a failed request at least `timeout`, so that it stays in the tail."""
        return max(self.latency, timeout) if self.error else self.latency


@dataclass(frozen=True)
class Stretch:
    """The load generator's record of one round."""

    opened: float
    """When counting began, after the settling time."""
    closed: float
    """When counting ended."""
    requests: Mapping[str, Sequence[Request]]
    """All requests by the name of their arm, those of the settling time included."""
    lateness: Sequence[float]
    """Seconds by which the generator woke up late: for arrivals (open), or for its heartbeat (closed)."""
    starved: int
    """Arrivals that met no free user."""
    cpu: float
    """CPU seconds of the load generator per second of the round: 1.0 is one core, all that it can use."""

    @property
    def seconds(self) -> float:
        """The time from the first request until the last answer, the settling time included; 0 without requests."""
        every = [request for requests in self.requests.values() for request in requests]
        return max(r.end for r in every) - min(r.start for r in every) if every else 0.0

    def counts(self, request: Request) -> bool:
        """Return whether a request was due in the counted time."""
        return self.opened <= request.intended < self.closed

    def counted(self, arm: Arm) -> list[Request]:
        """Return the requests that were due in the counted time, however long their answers took."""
        return [r for r in self.requests[arm.name] if self.counts(r)]

    def finished(self, arm: Arm) -> list[Request]:
        """Return the good answers that arrived in the counted time."""
        return [r for r in self.requests[arm.name] if self.opened <= r.end < self.closed and not r.error]

    def answered(self, arm: Arm) -> float:
        """Return the number of good answers, each counted by the share of its duration that lies in the counted time.

        Users of a closed workload start together, so whole answers come in waves: how many waves end in the counted
        time depends on where it ends. The shares add up to the rate times the seconds wherever it ends.
        """
        return math.fsum(self.share(r) for r in self.requests[arm.name] if not r.error)

    def share(self, request: Request) -> float:
        """Return the share of a request's duration that lies in the counted time, from 0 to 1."""
        inside = min(request.end, self.closed) - max(request.start, self.opened)
        return inside / (request.end - request.start) if inside > 0 else 0.0


class Player(Protocol):
    """Something that plays rounds."""

    def play(self, planned: Round) -> Stretch:
        """Play one round to its last answer."""


class Generating(Player, Protocol):
    """A load generator: this process, or workers on this machine or on others."""

    @property
    def workers(self) -> tuple[str, ...]:
        """The names of the workers; empty for this process."""

    def start(self) -> None:
        """Start every user and wait until all are connected and idle."""

    def stop(self) -> None:
        """Stop every user, also those that still wait for an answer."""

    def rewind(self) -> None:
        """Let every arm begin with its first request again."""

    def play_on(self, rounds: Iterable[Round]) -> Iterator[tuple[Round, Stretch]]:
        """Play rounds of open workloads on end, and yield each one in its turn once its last answer is there."""


@dataclass(frozen=True)
class Played:
    """One arm's part of one round, with the service's metrics."""

    arm: Arm
    round: Round
    stretch: Stretch
    server: Scrape
    """The increase of the variant's counters during the round.

    Of rounds that were played on end, the arm's first one holds the whole increase.
    """
    gauges: Scrape
    """The variant's metrics after the round."""
    foreign: int = 0
    """Predictions that the service counted meanwhile for variants outside of this round."""
    energy: Energy | None = None
    """The energy that the machine used from before the round's first request until after its last answer.

    None where it cannot be read or told apart: arms that were loaded at once, rounds on end.
    """
    front_cpu: float | None = None
    """CPU seconds of the service's HTTP process per second of the round: 1.0 is one core, all that it can use.

    None where it cannot be read or told apart: a service without metrics, rounds on end.
    """

    @property
    def bare(self) -> "Played":
        """The same without its requests."""
        return replace(self, stretch=replace(self.stretch, requests={}))

    @property
    def requests(self) -> Sequence[Request]:
        """All requests of the arm, those of the settling time included."""
        return self.stretch.requests[self.arm.name]

    @property
    def counted(self) -> list[Request]:
        """The arm's requests that were due in the counted time."""
        return self.stretch.counted(self.arm)

    @property
    def answered(self) -> float:
        """The arm's good answers in the counted time, from which throughput is computed.

        A closed workload counts the share of each request. An open workload counts whole answers: its users do not
        start together, and under a load that the arm cannot hold, only the ends of requests come at the arm's rate.
        """
        if self.round.workload.rate is None:
            return self.stretch.answered(self.arm)
        return float(len(self.stretch.finished(self.arm)))


def rounds_of(played: Sequence[Played], arm: Arm, workload: Workload) -> list[Played]:
    """Return the rounds of one arm under one workload, in the order in which they were played."""
    return [p for p in played if p.arm == arm and p.round.workload == workload]

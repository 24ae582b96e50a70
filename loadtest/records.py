"""What one request and one round left behind: raw, unrounded."""

from dataclasses import dataclass, field
from typing import NamedTuple

from loadtest.client.scrape import Scrape
from loadtest.plan import Arm, Round


class Request(NamedTuple):
    """One request. Times are `time.perf_counter()` seconds; `intended` is when an open workload wanted it sent.

    `answer` holds a class index per image; `error` is a word for people, empty when all is well. The `server_*` times
    are what the answer says about itself, NaN where it says nothing.
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

    def waited(self, timeout: float) -> float:
        """The latency; of a failed request at least `timeout`, so that it stays in the tail that it belongs to."""
        return max(self.latency, timeout) if self.error else self.latency


@dataclass(frozen=True)
class Played:
    """One arm's share of one round; `requests` are all of them, also those of the settling time."""

    arm: Arm
    round: Round
    opened: float
    """When counting began (the settling time is over)."""
    closed: float
    requests: list[Request]
    server: Scrape
    """What this round added to the service's counters."""
    gauges: Scrape
    """The service's metrics when the round was over."""
    client_cpu: float
    """CPU seconds of the load generator per second, over the whole round: 1.0 is one core, all it can use."""
    lateness: tuple[float, ...] = field(default=())
    """Seconds by which the generator woke up late: for arrivals (open), or for its heartbeat (closed)."""
    starved: int = 0
    """Arrivals that found no free user."""
    foreign: int = 0
    """Predictions that the service ended meanwhile for variants that this round did not load."""

    @property
    def counted(self) -> list[Request]:
        """Requests that were due in the counted time, waited for however long they took."""
        return [r for r in self.requests if self.opened <= r.intended < self.closed]

    @property
    def finished(self) -> list[Request]:
        """Good answers that arrived in the counted time: what throughput counts."""
        return [r for r in self.requests if self.opened <= r.end < self.closed and not r.error]

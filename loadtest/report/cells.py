"""The part of the report about one cell, which is one arm under one workload."""

from collections.abc import Mapping
from dataclasses import dataclass

from common.statistics import Interval

QUANTILES = {"p50": 0.50, "p95": 0.95, "p99": 0.99}
"""The quantiles of the latency that arms are compared at."""
STATED = QUANTILES | {"p999": 0.999}
"""The quantiles of the latency that a cell states. p999 stands for p99.9."""

FRONT_BUSY = 0.85
"""CPU seconds per second above which the service's HTTP process, which uses one core, counts as the bottleneck."""


@dataclass(frozen=True)
class Latency:
    """Latency of the requests of one cell in seconds.

    The quantiles and the maximum cover all requests that were due: a failed one counts as one that took the timeout at
    least. A quantile is None where there are too few requests to state it. The mean covers the answered requests only.
    """

    requests: int
    """The answered requests."""
    mean: float | None
    p50: float | None
    p95: float | None
    p99: float | None
    p999: float | None
    """The 99.9 % quantile."""
    max: float | None

    @property
    def tails(self) -> tuple[float | None, ...]:
        """The quantiles in their order, then the maximum."""
        return (*(self.named(name) for name in STATED), self.max)

    def named(self, name: str) -> float | None:
        """Return the mean or a quantile by its name."""
        value: float | None = getattr(self, name)
        return value


@dataclass(frozen=True)
class Spread:
    """Mean and quantiles of a time in seconds."""

    mean: float | None
    p50: float | None
    p99: float | None


@dataclass(frozen=True)
class Memory:
    """Bytes by kind. A kind is a value of the label `kind` of the service's metrics."""

    batch: Mapping[str, float]
    """What a batch needed beyond the weights, the mean over the requests."""
    model: Mapping[str, float]
    now: Mapping[str, float]
    """Memory of the variant's processes after the last round."""

    @property
    def process(self) -> float | None:
        """The memory of the variant's processes: PSS where the service states it, else RSS."""
        return self.now.get("pss") or self.now.get("rss")

    @property
    def weights(self) -> float:
        """The model's parameters; 0 where the service does not state them."""
        return self.model.get("parameters", 0.0)


@dataclass(frozen=True)
class ServerSide:
    """The service's view of one cell, from its metrics before and after each round."""

    requests: int | None
    """Predictions that the service counted for the variant; None where it has no metrics, as for all below but
    `requests_sent`."""
    requests_sent: int
    requests_of_others: int | None
    """Predictions that the service counted meanwhile for variants that the round did not load."""
    shadowed: int | None
    """Images that the service also ran through the reference."""
    request_seconds: float | None
    """Mean time from the headers of a request to its answer."""
    phase_seconds: Mapping[str, float | None]
    """Mean time of each phase of an answered request; the phases are listed in loadtest/phases.py."""
    inference_seconds: Spread
    queue_seconds: Spread
    outside_seconds: float | None
    """Mean time of a request outside of the service: the client's mean minus the service's."""
    restarts: int | None
    batch_size: float | None
    memory: Memory
    front_cpu: float | None = None
    """CPU seconds of the service's HTTP process per second, the mean over the rounds: 1.0 is all that it can use."""

    @property
    def front_is_limit(self) -> bool:
        """True if the HTTP process, and not the variant's workers, decides how many requests are answered."""
        return self.front_cpu is not None and self.front_cpu > FRONT_BUSY


@dataclass(frozen=True)
class RoundEnergy:
    """The energy of one round, from before its first request until after its last answer."""

    joules: float
    seconds: float
    images: int
    """Images answered in that time."""


@dataclass(frozen=True)
class EnergyUse:
    """The energy of one cell, over all its rounds, in joules per 1,000 answered images."""

    joules: Interval
    """All energy that the machine used, with its 95 % interval."""
    idle_joules: float | None
    """The part that the idle machine uses in the same time; None where its power was not measured."""
    watts: float
    """Mean power of the machine."""


@dataclass(frozen=True)
class RoundSummary:
    """One round of one cell."""

    block: int
    """Rounds of the same block ran next to each other and are compared as a pair."""
    seconds: float
    settle: float
    answered: float
    """Good answers in the counted time. In a closed workload a request that lies partly inside counts by its share."""
    errors: int
    client_cpu: float
    """CPU seconds of the load generator per second: 1.0 is all that it can use. Four decimals."""
    late_p90: float | None
    """Seconds by which the latest tenth of the generator's wake-ups was late at least."""
    starved: int
    """Arrivals that met no free user."""
    latencies: tuple[float, ...]
    """Seconds of each request that was due, in the order of their ends, failed ones with the timeout at least.
    Seven decimals."""
    began: float = 0.0
    """Seconds from the start of the run's first round until this one began to count. Two decimals."""
    energy: RoundEnergy | None = None


@dataclass(frozen=True)
class Cell:
    """One arm under one workload."""

    arm: str
    workload: str
    concurrency: int | None
    """Users of a closed workload."""
    rate: float | None
    """Arrivals per second of an open workload."""
    requests: int
    """Requests that were due in the counted time."""
    saturated: bool
    """True if the arm cannot hold the open workload. Its latencies then only show how long the rounds were."""
    errors: Mapping[str, int]
    """Failed requests by kind of failure, the most frequent first."""
    requests_per_second: float
    images_per_second: float
    latency: Latency
    lateness: Spread
    """Time from when a request was due until the load generator sent it: a part of the latency. 0 in a closed workload,
    where a request is due when it is sent."""
    server: ServerSide
    rounds: tuple[RoundSummary, ...]
    invalid: tuple[str, ...] = ()
    """Why the numbers of this cell must not be used; empty if they hold."""
    energy: EnergyUse | None = None
    """None where the energy cannot be read, or not be told apart from that of other arms."""

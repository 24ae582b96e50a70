"""The options of a load test."""

from dataclasses import dataclass
from pathlib import Path

from loadtest.plan import Workload
from loadtest.slo.level import Slo
from loadtest.targets import Target


@dataclass(frozen=True)
class Place:
    """A host and a port."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


@dataclass(frozen=True)
class Options:
    """The options: most fields have a flag of `python -m loadtest`. Times are in seconds."""

    urls: tuple[Target, ...]
    variants: tuple[str, ...] = ()
    """The variants to measure; empty for all that are ready."""
    workloads: tuple[Workload, ...] = (Workload(concurrency=1), Workload(concurrency=8))
    duration: float = 20.0
    """Counted time per arm and workload."""
    round: float = 1.0
    """Counted time of one round."""
    settle: float = 0.25
    """Time at the start of a round that does not count."""
    warm_up: float = 2.0
    """Time per arm and workload before the first round, which does not count."""
    images: Path | None = None
    """A folder or an `.npz` file of labelled images; None for the bundled sample."""
    payload: str = "png"
    """`png` or `raw`."""
    images_per_request: int = 1
    contended: bool = False
    """Load all arms at the same time."""
    continuous: bool = False
    """Play the rounds of open workloads on end: the next one begins although answers to the last one are missing."""
    seed: int = 0
    timeout: float = 30.0
    """Time after which a request counts as failed."""
    users: int = 128
    """Requests in flight at most in an open workload."""
    error_limit: float = 0.01
    """Share of failed requests above which a cell is INVALID."""
    workers: int = 0
    """Processes that send the load; 0 for the load test's own one."""
    master: Place | None = None
    """Where workers on other machines join; None for workers that the load test starts itself."""
    max_duration: float = 0.0
    """Counted time per arm and workload after which rounds that drift are given up; 0 for 1.5 times `duration`."""
    slo: Slo | None = None
    slo_load: str = "rate"
    """The load that the search for `slo` varies: `rate` or `concurrency`."""
    price_per_hour: float | None = None
    """The price of the service's machine per hour, in any currency."""

    @property
    def slo_unit(self) -> str:
        """The unit of the load that the search for `slo` varies."""
        return "requests/s" if self.slo_load == "rate" else "users"

    @property
    def rounds(self) -> int:
        """The planned rounds of each arm and workload."""
        return max(1, round(self.duration / self.round))

    @property
    def most_rounds(self) -> int:
        """The rounds of each arm and workload after which a run that drifts is given up."""
        return max(self.rounds, round((self.max_duration or 1.5 * self.duration) / self.round))

"""What a run of the load test can be asked for."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from loadtest.plan import Workload
from loadtest.slo import Slo


@dataclass(frozen=True)
class Options:
    """One field is one flag of `python -m loadtest`; seconds, unless the name says otherwise."""

    urls: tuple[tuple[str, str], ...]
    """Label and base URL of each service; the label is empty when there is only one."""
    variants: tuple[str, ...] = ()
    workloads: tuple[Workload, ...] = (Workload(concurrency=1), Workload(concurrency=8))
    duration: float = 20.0
    round: float = 1.0
    settle: float = 0.25
    warm_up: float = 2.0
    images: Path | None = None
    payload: str = "png"
    images_per_request: int = 1
    contended: bool = False
    seed: int = 0
    timeout: float = 30.0
    users: int = 128
    processes: int = 1
    error_limit: float = 0.01
    max_duration: float = 0.0
    tolerance: float = 0.10
    slo: Slo | None = None
    slo_load: str = "rate"

    @property
    def rounds(self) -> int:
        """Rounds of each arm and workload."""
        return max(1, round(self.duration / self.round))

    @property
    def most_rounds(self) -> int:
        """Rounds after which a run that is not stable is given up."""
        return max(self.rounds, round((self.max_duration or 1.5 * self.duration) / self.round))

    def as_json(self) -> dict[str, Any]:
        """The settings as the report states them."""
        return {
            **asdict(self),
            "urls": [{"label": label, "url": url} for label, url in self.urls],
            "workloads": [workload.name for workload in self.workloads],
            "images": self.images.name if self.images else None,
            "slo": str(self.slo) if self.slo else None,
        }

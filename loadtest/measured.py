"""All that a run finds out, before any statistics."""

from dataclasses import dataclass, field
from typing import Any

from loadtest.analysis.stability import drift
from loadtest.client.images import Bodies, LabelledImages
from loadtest.client.server import Excluded
from loadtest.options import Options
from loadtest.plan import Arm, Workload
from loadtest.records import Played


@dataclass
class Measured:
    """Filled while the run goes on, so that an early end leaves what there was until then."""

    arms: list[Arm]
    excluded: list[Excluded]
    images: LabelledImages
    bodies: Bodies
    servers: list[dict[str, Any]]
    played: list[Played] = field(default_factory=list)
    levels: list[dict[str, Any]] = field(default_factory=list)
    """What the search for the highest load within a service level found, per arm."""
    problems: list[str] = field(default_factory=list)
    """What happened that makes the run INVALID."""
    partial: bool = False
    seconds: float = 0.0

    def cell(self, arm: Arm, workload: Workload) -> list[Played]:
        """The rounds of one arm under one workload, in the order in which they were played."""
        return [p for p in self.played if p.arm == arm and p.round.workload == workload]

    def unstable(self, options: Options) -> list[str]:
        """What keeps the rounds from being stable, a sentence per cell."""
        cells = [(arm, workload) for workload in options.workloads for arm in self.arms]
        reasons = [(arm, workload, drift(self.cell(arm, workload), options.tolerance)) for arm, workload in cells]
        return [f"{arm.name}, {workload.name}: {reason}" for arm, workload, reason in reasons if reason]

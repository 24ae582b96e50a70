"""The raw result of a run, before any statistics."""

import signal
from dataclasses import dataclass, field

from loadtest.client.description import Description
from loadtest.client.images import Bodies, LabelledImages
from loadtest.client.server import Excluded
from loadtest.energy import Metering
from loadtest.plan import Arm
from loadtest.records import Played
from loadtest.slo.level import Level
from loadtest.slo.stopped import Searched
from loadtest.targets import Target


@dataclass(frozen=True)
class Subjects:
    """The services under test, and their variants that are measured and left out."""

    services: tuple[tuple[Target, Description], ...]
    arms: tuple[Arm, ...]
    excluded: tuple[Excluded, ...]


@dataclass(frozen=True)
class Measured:
    """The raw result of a run. A run that ended early holds the rounds until then."""

    subjects: Subjects
    images: LabelledImages
    bodies: Bodies
    played: tuple[Played, ...]
    levels: tuple[Level, ...] = ()
    """The highest load within the service level per arm, if it was searched for to the end."""
    searched: tuple[Searched, ...] = ()
    """The runs of all searches, without their requests."""
    problems: tuple[str, ...] = ()
    """Events that make the run INVALID."""
    partial: bool = False
    """True if the run ended before its plan did."""
    stopped_by: signal.Signals | None = None
    """The signal that ended the run early."""
    seconds: float = 0.0
    workers: tuple[str, ...] = ()
    """The names of the workers that sent the load; empty for the load test's own process."""
    metering: Metering = field(default_factory=Metering)

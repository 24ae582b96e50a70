"""The report as types. `report.json` is a `Report` in JSON; report.schema.json beside this file is generated from it.

Seconds, bytes and shares are unrounded, unless a field says otherwise. None means: not measured, or not stated.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ConfigDict

from common.statistics import Interval
from loadtest.client.description import VariantInfo
from loadtest.client.server import Excluded
from loadtest.energy import Metering
from loadtest.options import Options
from loadtest.report.cells import Cell
from loadtest.slo.level import Level, LevelRatio
from loadtest.targets import PREDICT

SCHEMA_VERSION = 5
"""Raised with every change of the fields. Reports of other versions are refused, except those of READABLE."""
READABLE = (4,)
"""Older versions that are read, too: they only lack fields that have a default."""


@dataclass(frozen=True)
class Client:
    """The machine and the process of the load generator."""

    cpu: str
    isa: str
    cores: int
    platform: str
    python: str
    locust: str
    gevent: str
    cpu_flags: tuple[str, ...]
    load_average: tuple[float, float, float]
    git_revision: str | None
    """The commit of the load test, with `-dirty` if files differ; None outside of a repository."""


@dataclass(frozen=True)
class Server:
    """One service, as it described itself at the start of the run."""

    label: str
    url: str
    variants: tuple[VariantInfo, ...]
    checkpoint: Mapping[str, Any]
    service: Mapping[str, Any]
    protocol: str = PREDICT
    """`predict`, or `v2` for the Open Inference Protocol: then the service's side of all requests is unknown."""


@dataclass(frozen=True)
class Images:
    """The labelled images that were sent."""

    count: int
    sha256: str
    """Equal for two runs that sent the same images with the same labels."""
    classes: tuple[str, ...] = ()
    """The names of the classes, in the order of the answers' indices; empty if nobody states them."""
    unlabelled: int = 0
    """The images of classes that the service does not know; they have no part in the accuracy."""
    formats: tuple[str, ...] = ()
    """The formats in which they were sent, such as `png` or `jpeg`; `raw` for pixels."""


@dataclass(frozen=True)
class ReportedArm:
    """One side of the comparison: a variant of one service."""

    name: str
    variant: str
    url: str
    device: str
    baseline: str | None
    """The arm that this one is compared with; None for a reference."""
    asked: str = ""
    """The input in words, if it is a tensor of the Open Inference Protocol; else empty."""


@dataclass(frozen=True)
class Against:
    """The answers of an arm compared with those of its baseline, on the images that both answered."""

    baseline: str
    images: int
    agreement: Interval | None
    """Share of the images with the same answer."""
    difference: Interval | None
    """Accuracy of the arm minus accuracy of the baseline."""
    only_this_right: int
    only_baseline_right: int
    mcnemar_p: float


@dataclass(frozen=True)
class Accuracy:
    """The answers of one arm."""

    arm: str
    images: int
    """The labelled images that all arms answered."""
    accuracy: Interval | None
    """Share of right answers to those images."""
    changed_answers: int
    """Answers that differ from the arm's first answer to the same image."""
    right: str
    """One mark per image of the file, in its order: `1` right, `0` wrong, `-` not judged."""
    against: Against | None


@dataclass(frozen=True)
class Ratios:
    """The arm's number over its baseline's. None where there are too few requests to state the number."""

    images_per_second: Interval | None
    p50: Interval | None
    p95: Interval | None
    p99: Interval | None
    energy: Interval | None = None
    """Joules per image."""


@dataclass(frozen=True)
class Comparison:
    """A cell compared with the cell of its baseline under the same workload."""

    arm: str
    baseline: str
    workload: str
    rounds: int
    """Rounds that both arms played."""
    ratios: Ratios


@dataclass(frozen=True)
class Price:
    """The price of an arm at its best valid load, from `settings.price_per_hour`."""

    arm: str
    workload: str
    """The workload under which the arm answers most images per second."""
    images_per_second: float
    per_million: Interval
    """The price of a million images, with its 95 % interval."""


@dataclass(frozen=True)
class Decision:
    """The advice for one workload, among the arms that share a baseline."""

    subject: str
    """The workload, and the baseline if the workload has several decisions."""
    choice: tuple[str, ...]
    """The arms to run, the fastest first; empty if the numbers do not decide."""
    words: str
    """The reason for the choice, or the reason that there is none."""

    @property
    def sentence(self) -> str:
        """The decision as one line."""
        return f"{self.subject}: {', '.join(filter(None, (' or '.join(self.choice), self.words)))}."


@dataclass(frozen=True)
class Verdict:
    """The results about one subject in words."""

    subject: str
    verdicts: tuple[str, ...]

    @property
    def sentence(self) -> str:
        """The verdicts as one sentence."""
        return f"{self.subject}: {'; '.join(self.verdicts)}."


@dataclass(frozen=True)
class Report:
    """A load test: settings, measurements, statistics and verdicts."""

    __pydantic_config__ = ConfigDict(
        extra="forbid", use_attribute_docstrings=True, json_schema_serialization_defaults_required=True
    )

    created: str
    """Time in UTC, ISO 8601."""
    command: tuple[str, ...]
    seconds: float
    """Duration of the whole run."""
    partial: bool
    """True if the run ended before its plan did."""
    settings: Options
    client: Client
    same_machine: bool
    """True if the load generator and all services ran on one machine."""
    servers: tuple[Server, ...]
    images: Images
    arms: tuple[ReportedArm, ...]
    excluded: tuple[Excluded, ...]
    cells: tuple[Cell, ...]
    accuracy: tuple[Accuracy, ...]
    comparisons: tuple[Comparison, ...]
    levels: tuple[Level, ...]
    """The highest load within the service level per arm, if it was searched for."""
    workers: tuple[str, ...] = ()
    """The names of the workers that sent the load; empty for the load test's own process."""
    level_ratios: tuple[LevelRatio, ...] = ()
    """The limits of the arms over those of their baselines."""
    invalid: tuple[str, ...] = ()
    """Why no number of the run must be used; each cell has reasons of its own."""
    notes: tuple[str, ...] = ()
    """Facts that a reader must know."""
    verdicts: tuple[Verdict, ...] = ()
    summary: tuple[str, ...] = ()
    """The verdicts as sentences."""
    energy: Metering = field(default_factory=Metering)
    """The counters of energy."""
    prices: tuple[Price, ...] = ()
    """The price of each arm that has a valid cell, if the price per hour is known."""
    decisions: tuple[Decision, ...] = ()
    """The advice for each workload."""
    schema_version: int = SCHEMA_VERSION

    @property
    def reasons(self) -> list[str]:
        """Why the run, or a cell of it, is INVALID; empty if all numbers hold."""
        cells = [f"{c.arm}, {c.workload}: {reason}" for c in self.cells for reason in c.invalid]
        searches = [f"{s.arm}, {s.slo}: generator limited: {s.limited}" for s in self.levels if s.limited]
        return [*self.invalid, *searches, *cells]

    @property
    def is_void(self) -> bool:
        """True if no cell holds."""
        return not self.valid

    @property
    def valid(self) -> list[str]:
        """The names of the cells that hold."""
        return [] if self.invalid else [f"{cell.arm}, {cell.workload}" for cell in self.cells if not cell.invalid]

    @property
    def devices(self) -> dict[str, str]:
        """The device of each arm."""
        return {arm.name: arm.device for arm in self.arms}

    def sides(self, comparison: Comparison) -> list[Cell]:
        """Return the cells of a comparison: the arm's, then the baseline's."""
        both = (comparison.arm, comparison.baseline)
        return [cell for arm in both if (cell := self.cell(arm, comparison.workload))]

    def cell(self, arm: str, workload: str) -> Cell | None:
        """Return the cell of an arm under a workload, if it was measured."""
        return next((cell for cell in self.cells if (cell.arm, cell.workload) == (arm, workload)), None)

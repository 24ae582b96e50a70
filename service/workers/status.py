"""What a worker says about itself: its state, what it runs, why it cannot run."""

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from pydantic import TypeAdapter

from models.accuracy import SampleAccuracy
from models.engines.base import EngineInfo


class State(StrEnum):
    """The state of a worker. A variant is in the best state of its workers; the members stand best first."""

    READY = "ready"
    STARTING = "starting"
    FAILED = "failed"
    UNAVAILABLE = "unavailable"
    """This machine can never run it."""


BEST_FIRST = tuple(State)


@dataclass(frozen=True, kw_only=True)
class WorkerInfo(EngineInfo):
    """The info of a worker's engine, and what was measured while the worker started."""

    load_seconds: float
    warmup_seconds: float
    """Of the first batch of every size, and of the self-test."""
    full_batch_seconds: float
    """The time of a batch of `max_batch_size` images, once all sizes were warmed up."""
    selftest_agreement: float
    """Share (0 to 1) of the sample with the answer of the FP32 reference, see `models.selftest`."""
    memory_kind: str
    """The kind of memory that each batch reports, see `models.engines.base.Execution`."""
    activation_peaks: dict[int, int] = field(default_factory=dict)
    """Batch size -> bytes beyond the resident weights."""
    sample: SampleAccuracy | None = None
    """The accuracy on the sample; None if it has no labels for this network."""
    clock_ratio: float | None = None
    """CUDA events over the wall clock, see `models.selftest.clock_ratio`; None on the CPU."""

    def as_json(self) -> dict[str, Any]:
        """Return the fields as JSON has them: tuples are lists, keys are strings."""
        document: dict[str, Any] = _WORKER_INFO.dump_python(self, mode="json")
        return document


_WORKER_INFO = TypeAdapter(WorkerInfo)


@dataclass(frozen=True)
class Refusal:
    """Why a worker has no engine: `unavailable` or `failed`, and the reason in words."""

    state: State
    reason: str


@dataclass(frozen=True)
class Failure:
    """Why a batch has no answer: a word of `service.errors`, and the detail for the client."""

    word: str
    detail: str

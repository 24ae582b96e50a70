"""The outcome of a request's batches, put together from its parts."""

import time
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from service.phases import Phases
from service.workers.queue import Answer
from service.workers.status import WorkerInfo
from service.workers.wire import Result, critical_path


@dataclass(frozen=True, slots=True)
class Executed:
    """The images of one request after a variant's engine ran them."""

    variant: str
    info: WorkerInfo
    logits: NDArray[np.float32]
    """`[N, classes] float32`."""
    batch_size: int
    """Images in the largest batch that held a part of the request."""
    memory_bytes: int
    """What the most demanding of these batches needed beyond the resident weights."""
    phases: Phases
    """From `receive` to `deliver`; the worker's are those of `path`, added up."""
    path: Sequence[Result]
    """The critical path of the request's batches, see `critical_path`."""
    delivered: float
    """A reading of `time.perf_counter()` when the logits were here."""

    @classmethod
    def of(cls, variant: str, phases: Phases, enqueued: float, answers: Sequence[Answer]) -> "Executed":
        """Put the answers to the parts of a request together, in their order.

        Args:
            variant: the name of the variant that ran them.
            phases: the request's phases until it was queued.
            enqueued: a reading of `time.perf_counter()` when it was queued.
            answers: one for each part.
        """
        results = [answer.result for answer in answers]
        path = critical_path(results)
        logits = results[0].logits if len(results) == 1 else np.concatenate([result.logits for result in results])
        delivered = time.perf_counter()
        return cls(
            variant=variant,
            info=answers[0].info,
            logits=logits,
            batch_size=max([answer.batch_size for answer in answers]),
            memory_bytes=max([result.memory_bytes for result in results]),
            phases=phases._replace(
                queue=path[0].started - enqueued,
                copy_in=sum([result.copy_in for result in path]),
                inference=sum([result.inference for result in path]),
                copy_out=sum([result.copy_out for result in path]),
                deliver=delivered - path[-1].computed,
            ),
            path=path,
            delivered=delivered,
        )

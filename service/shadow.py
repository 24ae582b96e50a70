"""A sampled share of requests is run through fp32, too: the live agreement of the other variants, without labels."""

import asyncio
import random
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.errors import ServiceError
from service.metrics import Metrics
from service.settings import ALL, Settings
from service.workers.pool import Pool
from service.workers.queue import Answer

REFERENCE = "fp32"
MOST_IMAGES = 8
"""Of one request, in one batch."""


def in_background(settings: Settings) -> Settings:
    """Those of the reference's worker: there is one, and it warms up and keeps memory for no larger batch."""
    return settings.model_copy(update={"workers": 1, "max_batch_size": {ALL: MOST_IMAGES}})


class Shadow:
    """Takes answered requests on offer and compares some of them with the answer of an fp32 worker of its own.

    One at a time; what is sampled while the worker is busy is dropped and counted. The request on offer is already
    answered, the worker has only time that nobody else wants: nothing here can delay or fail a caller.
    """

    def __init__(self, share: float, reference: Pool | None, metrics: Metrics, timeout: float) -> None:
        self._share = share
        self._reference = reference
        self._metrics = metrics
        self._timeout = timeout
        self._busy = False

    def offer(self, variant: str, pixels: NDArray[np.uint8], logits: NDArray[np.float32]) -> None:
        """A request of `[N, 3, S, S] uint8` images was answered with `[N, 10] float32` logits."""
        if self._share and variant != REFERENCE and random.random() < self._share:
            asyncio.get_running_loop().call_soon(self._start, variant, pixels[:MOST_IMAGES], logits[:MOST_IMAGES])

    def _start(self, variant: str, pixels: NDArray[np.uint8], logits: NDArray[np.float32]) -> None:
        reference = self._reference
        if reference is None or self._busy or not reference.is_idle:
            self._metrics.shadow_dropped(variant)
            return
        try:
            entries = reference.submit(pixels, self._timeout)
        except ServiceError:
            self._metrics.shadow_dropped(variant)
            return
        self._busy = True
        answers = asyncio.gather(*(entry.answer for entry in entries), return_exceptions=True)
        answers.add_done_callback(partial(self._compare, variant, logits))

    def _compare(
        self, variant: str, logits: NDArray[np.float32], answers: "asyncio.Future[list[Answer | BaseException]]"
    ) -> None:
        self._busy = False
        parts = [answer.result.logits for answer in answers.result() if isinstance(answer, Answer)]
        if len(parts) < len(answers.result()):
            self._metrics.shadow_dropped(variant)
            return
        expected = np.concatenate(parts)
        agrees = (logits.argmax(1) == expected.argmax(1)).tolist()
        distances = np.abs(logits - expected).max(1).tolist()
        self._metrics.shadow_compared(variant, agrees, distances)

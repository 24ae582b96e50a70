"""Shadows: a sampled share of requests also runs through the reference, to watch how the other variants agree."""

import asyncio
import random
from functools import partial

import numpy as np
from numpy.typing import NDArray

from models.variants import REFERENCE
from service.agreement import Agreement
from service.errors import ServiceError
from service.metrics import Metrics
from service.workers.launch import MOST_SHADOW_IMAGES
from service.workers.pool import Pool
from service.workers.queue import Answer


class Shadow:
    """Compares some of the answered requests with the answers of a background worker that runs the reference.

    It runs one request at a time. A request that is sampled while the worker is busy is dropped and counted. Callers
    are neither delayed nor failed: they have their answers, and the worker gets only time that nobody else wants.
    """

    def __init__(self, share: float, reference: Pool | None, metrics: Metrics, timeout: float) -> None:
        self._share = share
        self._reference = reference
        self._metrics = metrics
        self._timeout = timeout
        self._busy = False

    def offer(self, variant: str, pixels: NDArray[np.uint8], logits: NDArray[np.float32]) -> None:
        """Sample, or do not sample, a request of `[N, 3, S, S] uint8` images with its `[N, classes] float32` logits."""
        if self._share and variant != REFERENCE and random.random() < self._share:
            asyncio.get_running_loop().call_soon(
                self._start, variant, pixels[:MOST_SHADOW_IMAGES], logits[:MOST_SHADOW_IMAGES]
            )

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
        agreement = Agreement.of(logits, np.concatenate(parts))
        self._metrics.shadow_compared(variant, agreement.same_class, agreement.distance)

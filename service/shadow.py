"""A sampled share of requests is run through fp32, too: the live agreement of the other variants, without labels."""

import asyncio
import random
from collections.abc import Mapping
from functools import partial

import numpy as np
from numpy.typing import NDArray

from service.engine.pool import Pool
from service.engine.queue import Answer
from service.errors import ServiceError
from service.metrics import Metrics

REFERENCE = "fp32"
MOST_IMAGES = 8
"""Of one request: an fp32 request that comes while a shadow runs waits for no more than this."""


class Shadow:
    """Takes answered requests on offer and compares some of them with fp32's answer, when fp32 has nothing else to do.

    One at a time, and only while no image waits for fp32 and a worker of it is idle; what is sampled at another moment
    is dropped and counted. The request on offer is already answered: nothing here can delay or fail it.
    """

    def __init__(self, share: float, pools: Mapping[str, Pool], metrics: Metrics, timeout: float) -> None:
        self._share = share
        self._pools = pools
        self._metrics = metrics
        self._timeout = timeout
        self._busy = False

    def offer(self, variant: str, pixels: NDArray[np.uint8], logits: NDArray[np.float32]) -> None:
        """A request of `[N, 3, S, S] uint8` images was answered with `[N, 10] float32` logits."""
        if self._share and variant != REFERENCE and random.random() < self._share:
            asyncio.get_running_loop().call_soon(self._start, variant, pixels[:MOST_IMAGES], logits[:MOST_IMAGES])

    def _start(self, variant: str, pixels: NDArray[np.uint8], logits: NDArray[np.float32]) -> None:
        reference = self._pools[REFERENCE]
        if self._busy or not reference.is_idle:
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

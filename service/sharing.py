"""Expensive answers that several requests share: asking often costs the service no more than a share of its time."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from starlette.requests import Request

Answer = TypeVar("Answer")

REST = 3
"""The pause after an answer, in multiples of the time that it took: answers of one kind take a quarter of the time."""
MOST_REST_SECONDS = 0.5


class Shared(Generic[Answer]):
    """A maker of one answer at a time, for all requests that came before the making began.

    No answer is older than its request. `make` gets one of these requests; the answer depends only on the app. It is a
    coroutine that lets other tasks run between its steps.
    """

    def __init__(self, make: Callable[[Request], Awaitable[Answer]]) -> None:
        self._make = make
        self._turn = asyncio.Lock()
        self._begun = 0
        self._answer: Answer | None = None
        self._answer_number = 0  # 0 while there is no answer
        self._free_at = 0.0

    async def get(self, request: Request) -> Answer | None:
        """Return an answer whose making begins after this call, or None if the client has gone.

        Raises:
            Exception: what `make` raises for this request. Requests that wait try again one by one.
        """
        begun_before = self._begun
        async with self._turn:
            if self._answer_number > begun_before:
                return self._answer
            await asyncio.sleep(max(0.0, self._free_at - time.perf_counter()))
            if await request.is_disconnected():
                return None
            return await self._made(request)

    async def _made(self, request: Request) -> Answer:
        self._begun += 1
        number, began = self._begun, time.perf_counter()
        try:
            self._answer = await self._make(request)
            self._answer_number = number
            return self._answer
        finally:
            now = time.perf_counter()
            self._free_at = now + min(REST * (now - began), MOST_REST_SECONDS)

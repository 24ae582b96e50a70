"""The turns that workers of several variants take on cores that they share.

Two batches at once on the same cores end no sooner than one after the other. But the system shares the cores evenly
among their threads, so a variant with few requests waits as if it had many. With turns it waits for one short batch.
"""

import asyncio
import math
import time
from collections.abc import Callable

SLICE_SECONDS = 0.05
"""The time that a batch may take by its worker's last batch, while workers of other variants are active."""
PATIENCE_SECONDS = 0.15
"""The longest wait for the batch of another worker. A worker that hangs keeps the others from the cores no longer."""
ACTIVE_SECONDS = 10.0
"""A worker is active until so many seconds after its last batch."""


class Cores:
    """Cores for `places` workers at once. Further ones wait in order of arrival."""

    def __init__(self, places: int = 1) -> None:
        self._places = places
        self._since: dict[Turn, float] = {}
        """The turns that are under way, and when each began."""
        self._waiting: dict[Turn, None] = {}
        self._last: dict[Turn, float] = {}
        """When each turn was last wanted or ended."""
        self._timer: asyncio.TimerHandle | None = None

    def begin(self, turn: "Turn") -> bool:
        """Start the turn, or let it wait until it is resumed. Return True if it started."""
        now = self._last[turn] = time.perf_counter()
        if self._has_place(now):
            self._since[turn] = now
            self._waiting.pop(turn, None)
            return True
        self._waiting[turn] = None
        self._watch(now)
        return False

    def end(self, turn: "Turn") -> None:
        """End the turn and resume those that wait."""
        self._last[turn] = time.perf_counter()
        del self._since[turn]
        self._resume()

    def knows(self, turn: "Turn") -> bool:
        """Return True if the turn is under way or waits."""
        return turn in self._since or turn in self._waiting

    def are_shared(self, turn: "Turn") -> bool:
        """Return True if another worker was active lately."""
        until = time.perf_counter() - ACTIVE_SECONDS
        return any(last > until for other, last in self._last.items() if other is not turn)

    def _has_place(self, now: float) -> bool:
        return sum(now - since < PATIENCE_SECONDS for since in self._since.values()) < self._places

    def _resume(self) -> None:
        """Resume turns that wait, as long as there are places."""
        while self._waiting and self._has_place(time.perf_counter()):
            turn = next(iter(self._waiting))
            del self._waiting[turn]
            turn.resumed()
        self._watch(time.perf_counter())

    def _watch(self, now: float) -> None:
        """Plan to resume turns when the oldest batch that they wait for has had its time."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        young = [since for since in self._since.values() if now - since < PATIENCE_SECONDS]
        if self._waiting and young:
            left = min(young) + PATIENCE_SECONDS - now
            self._timer = asyncio.get_running_loop().call_later(left + 0.001, self._resume)


class Turn:
    """One worker's turns on its cores. `resume` is called when a turn that could not begin may begin."""

    def __init__(self, cores: Cores, batch_size: int, resume: Callable[[], None]) -> None:
        self._batch_size = batch_size
        self._resume = resume
        self._cores = cores
        self._wanted: float | None = None
        self._began = 0.0
        self._image_seconds = 0.0

    def begin(self) -> bool:
        """Return True if the worker may execute a batch now."""
        now = time.perf_counter()
        if self._wanted is None:
            self._wanted = now
        self._began = now
        return self._cores.begin(self)

    def resumed(self) -> None:
        """Let the worker begin. If it does not, its next turn is wanted from then on."""
        self._resume()
        if not self._cores.knows(self):
            self._wanted = None

    def end(self, images: int) -> float:
        """End the turn after a batch of so many images. Return the seconds since the turn was first wanted."""
        now = time.perf_counter()
        wanted, self._wanted = self._wanted or self._began, None
        self._image_seconds = (now - self._began) / images
        self._cores.end(self)
        return now - wanted

    @property
    def most_images(self) -> int:
        """The images that a batch may have: if the cores are shared, what takes SLICE_SECONDS, at least one."""
        if not self._image_seconds or not self._cores.are_shared(self):
            return self._batch_size
        return max(1, min(self._batch_size, math.floor(SLICE_SECONDS / self._image_seconds)))

"""The rounds of one process: its users take turns from a desk, and every request leaves a record."""

import ctypes
import gc
import random
import sys
import time
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import count
from typing import Any

import gevent
from gevent.event import Event

from loadtest.client.answers import lost
from loadtest.client.users import Desk, Turn
from loadtest.plan import Arm, Round, Workload
from loadtest.records import NEVER_SENT, UNANSWERED, Request, Stretch

HEARTBEAT = 0.02
"""Seconds between two checks of how late this process wakes up."""
TIMER_SLACK = 29
"""PR_SET_TIMERSLACK of Linux's prctl(2)."""


@dataclass
class _Running:
    """The round that is being played; its users and the generator add to it."""

    opened: float
    closed: float
    requests: dict[str, list[Request]]
    lateness: list[float] = field(default_factory=list)
    starved: int = 0
    outstanding: dict[int, Turn] = field(default_factory=dict)
    """The turns that were given and have not ended, by their number."""
    idle: Any = field(default_factory=Event)
    """Set when no turn is outstanding."""

    def end(self, turn: Turn) -> None:
        """Count a turn as ended."""
        del self.outstanding[turn.number]
        if not self.outstanding:
            self.idle.set()

    def lose(self, turn: Turn, error: str) -> None:
        """Record the request of an outstanding turn as failed. One of a closed workload counts as due at the start."""
        intended = self.opened if turn.intended is None else turn.intended
        self.requests[turn.arm.name].append(lost(intended, time.perf_counter(), error))
        self.end(turn)

    def stretch(self, cpu: float) -> Stretch:
        """Return the record of the round, to which nothing is added any more."""
        return Stretch(self.opened, self.closed, self.requests, self.lateness, self.starved, cpu)


@contextmanager
def uncollected() -> Iterator[None]:
    """Collect garbage first and then not until the end, so that no collection delays a request.

    A frozen object is not looked at again, so the collection is short however many records there are. A request leaves
    no garbage that needs the collector.
    """
    gc.collect()
    gc.freeze()
    gc.disable()
    try:
        yield
    finally:
        gc.enable()


def wake_on_time() -> None:
    """Tell Linux not to prolong this thread's waits, which it does by up to 50 microseconds to save power."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(TIMER_SLACK, 1, 0, 0, 0)


class Rounds:
    """Plays rounds with the users of one process, who take turns from a desk."""

    def __init__(self, desk: Desk, timeout: float, first: int = 0) -> None:
        """Keep the desk. Every arm begins with the request of number `first`."""
        self._desk, self._timeout, self._first = desk, timeout, first
        self._numbers = count()
        self._sequences: dict[tuple[Arm, Workload], count[int]] = {}

    def rewind(self) -> None:
        """Let every arm begin with its first request again."""
        self._sequences.clear()

    @uncollected()
    def play(self, planned: Round) -> Stretch:
        """Play one round to its last answer."""
        running, used = self._send(planned, time.perf_counter())
        self._drain(running)
        return running.stretch(used)

    def play_on(self, rounds: Iterable[Round]) -> Iterator[tuple[Round, Stretch]]:
        """Play rounds of open workloads on end, and yield each one in its turn once its last answer is there.

        A round begins as the one before it closes. A pause for the answers would come whenever the service stalls, and
        no request would be due in it, so rounds with pauses meet fewer stalls than there are (coordinated omission).
        """
        began = time.perf_counter()
        sent: deque[tuple[Round, _Running, float]] = deque()
        with uncollected():
            for planned in rounds:
                running, used = self._send(planned, began)
                sent.append((planned, running, used))
                began = running.closed
                while sent and not sent[0][1].outstanding:
                    yield _ended(*sent.popleft())
            self._drain(*(running for _, running, _ in sent))
            yield from (_ended(*each) for each in sent)

    def _send(self, planned: Round, began: float) -> tuple[_Running, float]:
        """Send the requests of a round that begins at `began`. Return its record and the CPU seconds per second."""
        start, cpu = time.perf_counter(), time.process_time()
        opened = began + planned.settle
        running = _Running(opened, opened + planned.seconds, {arm.name: [] for arm in planned.arms})
        turns = [self._turn(arm, planned.workload, running) for arm in planned.arms]
        rng = random.Random(planned.seed)
        if planned.workload.rate is None:
            rng.shuffle(turns)
            self._closed(turns, planned.workload.concurrency or 1, running)
        else:
            self._open(turns, planned.workload.rate, began, rng, running)
        return running, (time.process_time() - cpu) / (time.perf_counter() - start)

    def _turn(self, arm: Arm, workload: Workload, running: _Running) -> Turn:
        sequence = self._sequences.setdefault((arm, workload), count(self._first))

        def done(turn: Turn, request: Request) -> Turn | None:
            if turn.number not in running.outstanding:
                return None  # the round has ended without this request, which is recorded as UNANSWERED
            running.requests[arm.name].append(request)
            if turn.intended is None and request.end < running.closed:
                return turn
            running.end(turn)
            return None

        return Turn(0, arm, None, sequence.__next__, done)

    def _give(self, turn: Turn, running: _Running) -> None:
        turn = turn._replace(number=next(self._numbers))
        running.outstanding[turn.number] = turn
        running.idle.clear()
        running.starved += not self._desk.give(turn)

    def _closed(self, turns: list[Turn], concurrency: int, running: _Running) -> None:
        for _ in range(concurrency):
            for turn in turns:
                self._give(turn, running)
        while (now := time.perf_counter()) < running.closed:
            wake = min(now + HEARTBEAT, running.closed)
            gevent.sleep(wake - now)
            running.lateness.append(time.perf_counter() - wake)

    def _open(self, turns: list[Turn], rate: float, began: float, rng: random.Random, running: _Running) -> None:
        """Hand out turns at the times of Poisson arrivals: an independent stream at `rate` for each arm.

        The streams are drawn as one of their summed rate, whose arrivals each belong to a random arm.
        """
        rate *= len(turns)
        due = began + rng.expovariate(rate)
        while due < running.closed:
            if (wait := due - time.perf_counter()) > 0:
                gevent.sleep(wait)
            running.lateness.append(max(0.0, time.perf_counter() - due))
            self._give(rng.choice(turns)._replace(intended=due), running)
            due += rng.expovariate(rate)
        gevent.sleep(max(0.0, running.closed - time.perf_counter()))

    def _drain(self, *rounds: _Running) -> None:
        """Wait for the answers. Every request that was due leaves a record, also one that was never sent.

        A turn that waited until its timeout is not sent any more, so the backlog is gone after that time.
        """
        _wait(rounds, self._timeout)
        unsent = {turn.number for turn in self._desk.clear()}
        for running in rounds:
            for turn in [turn for number, turn in running.outstanding.items() if number in unsent]:
                running.lose(turn, NEVER_SENT)
        _wait(rounds, self._timeout + 1.0)
        for running in rounds:
            for turn in list(running.outstanding.values()):
                running.lose(turn, UNANSWERED)


def _ended(planned: Round, running: _Running, cpu: float) -> tuple[Round, Stretch]:
    return planned, running.stretch(cpu)


def _wait(rounds: Sequence[_Running], seconds: float) -> None:
    """Wait until every turn of the rounds has ended, for at most so many seconds."""
    deadline = time.perf_counter() + seconds
    for running in rounds:
        if running.outstanding:
            running.idle.wait(max(0.0, deadline - time.perf_counter()))

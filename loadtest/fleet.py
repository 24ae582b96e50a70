"""Several load generators, each a process that plays its share of every round: for more load than one core can send."""

import pickle
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import IO

from loadtest.client.generator import Generator, Stretch
from loadtest.client.images import Bodies
from loadtest.plan import Round

LEAD = 0.02
"""Seconds from the order to play until all begin; `time.perf_counter` is one clock for all processes on Linux."""


class GeneratorLost(Exception):
    """A load generator process ended in the middle of the run."""


@dataclass(frozen=True)
class Recipe:
    """How a process makes its generator."""

    bodies: Bodies
    urls: tuple[str, ...]
    users: int
    timeout: float
    index: int
    processes: int


class Fleet:
    """As Generator, spread over processes. Their users share the load evenly; arrivals stay Poisson."""

    def __init__(self, bodies: Bodies, urls: Sequence[str], users: int, timeout: float, processes: int) -> None:
        each = -(-users // processes)
        self._recipes = [Recipe(bodies, tuple(urls), each, timeout, index, processes) for index in range(processes)]
        self._workers: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        """Start every process, and wait until all their users are connected."""
        command = [sys.executable, "-m", "loadtest.worker"]
        for recipe in self._recipes:
            # In a session of its own: Ctrl-C is for this process, which lets the round end.
            worker = subprocess.Popen(  # noqa: S603 - this project's own module
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, start_new_session=True
            )
            self._workers.append(worker)
            self._send(worker, recipe)
        for worker in self._workers:
            self._receive(worker)

    def stop(self) -> None:
        """End every process."""
        for worker in self._workers:
            worker.kill()
            worker.communicate()

    def rewind(self) -> None:
        """Let every arm begin with the first request again."""
        for worker in self._workers:
            self._send(worker, None)

    def play(self, planned: Round) -> tuple[Stretch, float]:
        """Play one round: what all processes saw together, and the CPU seconds a second of the busiest.

        Raises:
            GeneratorLost: a process ended.
        """
        began = time.perf_counter() + LEAD
        for worker in self._workers:
            self._send(worker, (planned, began))
        return merged([self._receive(worker) for worker in self._workers])

    def _send(self, worker: subprocess.Popen[bytes], message: object) -> None:
        try:
            send(worker.stdin, message)
        except OSError:
            raise GeneratorLost("a load generator process ended") from None

    def _receive(self, worker: subprocess.Popen[bytes]) -> tuple[Stretch, float]:
        try:
            played: tuple[Stretch, float] = pickle.load(worker.stdout)  # type: ignore[arg-type] # noqa: S301 - our own child
        except EOFError:
            raise GeneratorLost("a load generator process ended") from None
        return played


def merged(parts: Sequence[tuple[Stretch, float]]) -> tuple[Stretch, float]:
    """The shares of one round as one."""
    stretches = [stretch for stretch, _ in parts]
    first = stretches[0]
    whole = Stretch(
        opened=first.opened,
        closed=first.closed,
        requests={name: [r for s in stretches for r in s.requests[name]] for name in first.requests},
        lateness=[late for stretch in stretches for late in stretch.lateness],
        starved=sum(stretch.starved for stretch in stretches),
    )
    return whole, max(used for _, used in parts)


def send(stream: IO[bytes] | None, message: object) -> None:
    """One message to the other side."""
    assert stream is not None
    pickle.dump(message, stream)
    stream.flush()


def work(orders: IO[bytes], answers: IO[bytes]) -> None:
    """The other side: play what is ordered until the orders end."""
    recipe: Recipe = pickle.load(orders)  # noqa: S301 - from the process that started this one
    generator = Generator(recipe.bodies, recipe.urls, recipe.users, recipe.timeout, recipe.index, recipe.processes)
    generator.start()
    send(answers, None)
    while True:
        try:
            order: tuple[Round, float] | None = pickle.load(orders)  # noqa: S301
        except EOFError:
            return
        if order is None:
            generator.rewind()
        else:
            send(answers, generator.play(*order))

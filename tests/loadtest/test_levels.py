"""The search for a service level over several arms, played on simulated services."""

import io
from types import SimpleNamespace

import numpy as np
import pytest

from loadtest.levels import Search, Stopped
from loadtest.options import Options
from loadtest.plan import Arm, Round
from loadtest.progress import Progress
from loadtest.records import Request
from loadtest.slo import Slo

P99 = Slo("p99", 0.99, 0.1)
CAPACITIES = {"fp32": 200.0, "int8": 600.0}
ARMS = [Arm(name, "http://service", name, {}) for name in CAPACITIES]


def request(intended: float, latency: float) -> Request:
    return Request(0, intended, intended, intended + latency, 200, "", (0,), 1.0, 0.0, 0.0, 0.0)


class Queues:
    """A generator whose arms are M/M/1 queues; `played` names the arms of the searches' runs, in order."""

    def __init__(self, capacities: dict[str, float] = CAPACITIES) -> None:
        self.capacities = capacities
        self.played: list[str] = []
        self._rng = np.random.default_rng(0)

    def play(self, planned: Round) -> tuple[SimpleNamespace, float]:
        (arm,) = planned.arms
        if planned.workload.rate:
            self.played.append(arm.name)
        capacity = self.capacities[arm.name]
        free = capacity - (planned.workload.rate or 0.0)
        count = round((planned.workload.rate or capacity) * planned.seconds)
        latencies = self._rng.exponential(1 / free, count) if free > 0 else np.full(count, 1.0)
        due = np.linspace(0, planned.seconds, count, endpoint=False)
        requests = [request(float(at), float(latency)) for at, latency in zip(due, latencies, strict=True)]
        stretch = SimpleNamespace(opened=0.0, closed=planned.seconds, requests={arm.name: requests}, lateness=[])
        return stretch, 0.1


def search(queues: Queues, most_runs: int = 1000) -> Search:
    def check() -> None:
        if len(queues.played) >= most_runs:
            raise Stopped

    options = Options(urls=(("", "http://service"),), slo=P99)
    return Search(options, queues, Progress(1, io.StringIO()), check)  # type: ignore[arg-type] # plays rounds


def test_the_arms_take_turns_and_each_gets_its_answer() -> None:
    """Run by run, while both search: what slows the machine for a while slows either."""
    queues = Queues()
    fp32, int8 = sorted(search(queues).levels(P99, ARMS), key=lambda level: list(CAPACITIES).index(level["arm"]))
    turns = min(len(level["tried"]) for level in (fp32, int8))
    assert queues.played[: 2 * turns] == ["fp32", "int8"] * turns
    assert (fp32["arm"], int8["arm"]) == ("fp32", "int8")
    for level in (fp32, int8):
        held = CAPACITIES[level["arm"]] - np.log(100) / 0.1
        assert 0.7 * held <= level["load"] <= 1.02 * held


def test_a_search_can_be_stopped_between_two_runs() -> None:
    """The user does not wait for the rest."""
    queues = Queues()
    with pytest.raises(Stopped):
        list(search(queues, most_runs=5).levels(P99, ARMS))
    assert len(queues.played) == 5


def test_an_answer_is_there_before_the_others_are() -> None:
    """Who stops the search of one arm keeps what was found of another: here that fp32 is too slow at any rate."""
    queues = Queues(CAPACITIES | {"fp32": 30.0})
    levels = search(queues, most_runs=13).levels(P99, ARMS)
    first = next(levels)
    assert (first["arm"], first["load"]) == ("fp32", None)
    with pytest.raises(Stopped):
        next(levels)

"""The search for a service level over several arms, played on simulated services."""

import io

import numpy as np
import pytest

from loadtest.plan import Round
from loadtest.progress import Progress
from loadtest.records import NEVER_SENT, Request, Stretch
from loadtest.slo.level import Slo
from loadtest.slo.stopped import Searched, unfinished
from loadtest.slo.turns import Search, Stopped, lasting, observed
from tests.loadtest.builders import arm, request, settings, stretch

P99 = Slo("p99", 0.99, 0.1)
CAPACITIES = {"fp32": 200.0, "int8": 600.0}
ARMS = [arm(name) for name in CAPACITIES]


class Queues:
    """A player of rounds whose arms are M/M/1 queues. `played` names the arms of the open rounds in their order."""

    def __init__(self, capacities: dict[str, float] = CAPACITIES) -> None:
        self.capacities = capacities
        self.played: list[str] = []
        self._rng = np.random.default_rng(0)

    def play(self, planned: Round) -> Stretch:
        (loaded,) = planned.arms
        if planned.workload.rate:
            self.played.append(loaded.name)
        capacity = self.capacities[loaded.name]
        free = capacity - (planned.workload.rate or 0.0)
        count = round((planned.workload.rate or capacity) * planned.seconds)
        latencies = self._rng.exponential(1 / free, count) if free > 0 else np.full(count, 1.0)
        due = np.linspace(0, planned.seconds, count, endpoint=False)
        requests = [request(float(at), float(latency)) for at, latency in zip(due, latencies, strict=True)]
        return stretch({loaded.name: requests}, planned.seconds)


def search(queues: Queues, most_runs: int = 1000, kept: list[Searched] | None = None) -> Search:
    """Return a search that is stopped after so many runs, and that adds its runs to `kept`."""

    def check() -> None:
        if len(queues.played) >= most_runs:
            raise Stopped

    return Search(settings(slo=P99), queues, Progress(1, io.StringIO()), check, ([] if kept is None else kept).append)


def test_the_arms_take_turns_and_each_gets_its_answer() -> None:
    """The arms alternate run by run as long as both searches go on, and each finds its own load."""
    queues = Queues()
    fp32, int8 = sorted(search(queues).levels(P99, ARMS), key=lambda level: list(CAPACITIES).index(level.arm))
    turns = min(len(level.found.tried) for level in (fp32, int8))
    assert queues.played[: 2 * turns] == ["fp32", "int8"] * turns
    assert turns > 0
    assert (fp32.arm, int8.arm) == ("fp32", "int8")
    for level in (fp32, int8):
        held = CAPACITIES[level.arm] - np.log(100) / 0.1
        assert 0.9 * held <= level.found.load <= held


def test_a_search_can_be_stopped_between_two_runs() -> None:
    """No run follows the stop."""
    queues = Queues()
    with pytest.raises(Stopped):
        list(search(queues, most_runs=5).levels(P99, ARMS))
    assert len(queues.played) == 5


def test_a_stopped_search_tells_what_its_runs_showed() -> None:
    """Both arms have half of the runs, and no load is stated. The arm whose search ended is not told again."""
    kept: list[Searched] = []
    with pytest.raises(Stopped):
        list(search(Queues(), most_runs=20, kept=kept).levels(P99, ARMS))
    fp32, int8 = unfinished(kept, [], settings(slo=P99))
    assert [(level.arm, level.found.load, len(level.found.tried)) for level in (fp32, int8)] == [
        ("fp32", None, 10),
        ("int8", None, 10),
    ]
    start = "int8 is not shown to hold p99 <= 100 ms under any load: the search was stopped after 10 runs; "
    assert int8.sentence().startswith(start)
    assert [level.arm for level in unfinished(kept, [fp32], settings(slo=P99))] == ["int8"]


def test_an_answer_is_there_before_the_others_are() -> None:
    """The result that fp32 is too slow at any rate comes before the search for int8 is stopped."""
    queues = Queues(CAPACITIES | {"fp32": 30.0})
    levels = search(queues, most_runs=15).levels(P99, ARMS)
    first = next(levels)
    assert (first.arm, first.found.load) == ("fp32", None)
    with pytest.raises(Stopped):
        next(levels)


def test_a_longer_round_makes_longer_runs() -> None:
    """200 requests at 100 requests/s take 2 s; `--round 10` makes it ten."""
    assert lasting(200, 100, settings()) == 2.0
    assert lasting(200, 100, settings(round=10.0)) == 10.0


def sent(late: float, took: float, error: str = "") -> Request:
    """Return a request that was due at 0, was sent `late` and took so long."""
    return request(0.0, late + took, error=error)._replace(start=late)


@pytest.mark.parametrize(
    ("requests", "cpu", "is_limited"),
    [
        ([sent(0.0, 0.2)] * 10, 0.3, False),
        ([sent(0.2, 0.01)] * 10, 0.3, True),
        ([sent(0.2, 0.2)] * 10, 0.3, False),
        ([sent(1.0, 0.0, NEVER_SENT)] * 10, 0.3, True),
        ([sent(0.0, 0.01, "503 Too many")] * 10, 0.3, False),
        ([sent(0.0, 0.2)] * 10, 0.95, True),
        ([sent(0.05, 0.01)] * 10, 0.95, False),
    ],
    ids=["slow", "sent late", "sent late and slow", "never sent", "refused", "busy", "busy, and the level held"],
)
def test_a_run_blames_the_service_only_for_its_own_time(requests: list[Request], cpu: float, is_limited: bool) -> None:
    """The generator limited a run that holds the level counted from when the requests were sent."""
    played = stretch({"fp32": requests}, cpu=cpu)
    assert observed(played, ARMS[0], P99).is_limited == is_limited

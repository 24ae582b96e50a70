"""The search for the highest load that holds a service level, on queues whose answer is known."""

import math
from collections.abc import Callable

import numpy as np
import pytest

from loadtest.slo.level import Found, Level, Slo, parse
from loadtest.slo.search import Probe, binomial, search


def level(slo: Slo, ceiling: float, probe: Callable[[float, float], Probe], *, whole: bool = False) -> Found:
    """Return the result of a search that takes no turns with others."""
    searching = search(slo, ceiling, probe, whole=whole)
    while True:
        try:
            next(searching)
        except StopIteration as end:
            return end.value


def queue(capacity: float, seed: int = 0):
    """Return a probe of an M/M/1 queue: the time in it is exponential with rate `capacity - load`."""
    rng = np.random.default_rng(seed)

    def probe(load: float, requests: float) -> Probe:
        count = round(requests)
        if load >= capacity:
            return Probe(count, count)
        return Probe(count, int(np.sum(rng.exponential(1 / (capacity - load), count) > 0.1)))

    return probe


@pytest.mark.parametrize("seed", range(5))
def test_the_known_rate_is_found_from_below(seed: int) -> None:
    """p99 = ln(100) / (capacity - load): 100 ms are held up to capacity - 46."""
    truth = 200 - math.log(100) / 0.1
    found = level(Slo("p99", 0.99, 0.1), 200, queue(200, seed))
    assert 0.75 * truth <= found.load <= 1.02 * truth


def test_a_service_that_is_too_slow_holds_nothing() -> None:
    """No load is confirmed."""
    found = level(Slo("p99", 0.99, 0.1), 30, queue(30))
    assert found.load is None


def test_users_are_whole() -> None:
    """A search over users tries whole numbers only."""
    found = level(
        Slo("p99", 0.99, 0.1), 17, lambda load, requests: Probe(round(requests), 0 if load <= 5 else 999), whole=True
    )
    assert found.load == 5


def test_none_over_proves_a_p99_from_652_requests() -> None:
    """Seven runs may try to confirm, so each has a seventh of the risk: 0.99 ** 652 <= 0.01 / 7."""
    slo = Slo("p99", 0.99, 0.1)
    assert not Probe(651, 0).proves(slo)
    assert Probe(652, 0).proves(slo)


def test_where_every_load_holds_the_answer_is_a_lower_bound() -> None:
    """The words say `at least`, since no higher load was tried."""
    found = level(Slo("p99", 0.99, 0.1), 100, lambda load, requests: Probe(round(requests), 0))
    assert found.bound == "no higher load was tried"
    said = Level("int8", "p99 <= 100 ms", "requests/s", 200.0, found).sentence()
    assert said.startswith("int8 holds p99 <= 100 ms at least up to 98.5 requests/s (0 of 1,377 requests were over, ")
    assert said.endswith("), no higher load was tried")


def test_stalls_that_only_long_runs_see_lower_the_answer() -> None:
    """Above 20 requests/s only long runs meet a stall: the search steps back below, and names the load that failed."""
    stalling = lambda load, requests: Probe(round(requests), 99 if requests > 1000 and load > 20 else 0)  # noqa: E731
    found = level(Slo("p99", 0.99, 0.1), 100, stalling)
    assert 0.6 * 20 < found.load <= 20
    said = Level("fp32", "p99 <= 100 ms", "requests/s", 200.0, found).sentence()
    assert said.endswith(f"), not shown at {min(trial.load for trial in found.tried if not trial.held):g}")


def test_if_nothing_holds_the_words_name_the_least_load_that_was_tried() -> None:
    """Short runs hold any load and long ones none: the search ends after steps back to a fifth of the load."""
    stalling = lambda load, requests: Probe(round(requests), 99 if requests > 1000 else 0)  # noqa: E731
    found = level(Slo("p99", 0.99, 0.1), 100, stalling)
    said = Level("fp32", "p99 <= 100 ms", "requests/s", 200.0, found).sentence()
    least = found.tried[-1].load
    assert least < 0.2 * 98.5
    assert (
        said
        == f"fp32 was not shown to hold p99 <= 100 ms under any load that was tried (the least: {least:g} requests/s)"
    )


def test_where_the_generator_was_too_slow_the_answer_is_a_lower_bound() -> None:
    """A load that the generator could not send in time is no limit of the service."""
    slow = lambda load, requests: Probe(round(requests), 0 if load < 50 else 999, is_limited=load > 40)  # noqa: E731
    assert level(Slo("p99", 0.99, 0.1), 100, slow).bound == "the load generator was too slow for a higher one"
    found = level(Slo("p99", 0.99, 0.1), 200, queue(200))
    assert found.bound == ""


def test_the_binomial_sum_is_exact() -> None:
    """Two of ten fair coins: 56 / 1024."""
    assert binomial(2, 10, 0.5) == pytest.approx(56 / 1024)


@pytest.mark.parametrize(("text", "slo"), [("p99=20ms", ("p99", 0.99, 0.02)), ("p95=1.5s", ("p95", 0.95, 1.5))])
def test_a_level_is_read(text: str, slo: tuple[str, float, float]) -> None:
    """Milliseconds and seconds are units of a level."""
    assert parse(text) == Slo(*slo)


@pytest.mark.parametrize("text", ["p99", "p99=20", "99=20ms", "p9=20ms"])
def test_a_level_that_makes_no_sense_is_refused(text: str) -> None:
    """The error shows an example."""
    with pytest.raises(ValueError, match="p99=20ms"):
        parse(text)

"""The search for the highest load that holds a service level, on services whose answer is known."""

import math
from collections.abc import Callable, Iterable

import numpy as np
import pytest

from common.statistics import Interval
from loadtest.slo.fit import Limit
from loadtest.slo.level import Found, Level, Slo, Trial, parse, ratio
from loadtest.slo.search import Probe, result, search

P99 = Slo("p99", 0.99, 0.1)


def found(ceiling: float, probe: Callable[[float, float], Probe], *, whole: bool = False) -> Found:
    """Return the result of a search that takes no turns with others."""
    searching = search(P99, ceiling, probe, whole=whole)
    while True:
        try:
            next(searching)
        except StopIteration as end:
            return end.value


def independent(capacity: float, seed: int = 0, *, users: float = math.inf):
    """Return a probe whose requests take exponential times of rate `capacity - load`, each on its own.

    A load above `users` is one that the load generator cannot send.
    """
    rng = np.random.default_rng(seed)

    def probe(load: float, requests: float) -> Probe:
        count = round(requests)
        share = math.exp(-(capacity - load) * P99.seconds) if load < capacity else 1.0
        return Probe(count, count if load > users else int(rng.binomial(count, share)), load > users)

    return probe


@pytest.mark.parametrize("seed", range(5))
def test_the_known_rate_is_found_from_below(seed: int) -> None:
    """p99 = ln(100) / (capacity - load): 100 ms are held up to capacity - 46."""
    truth = 200 - math.log(100) / 0.1
    answer = found(220, independent(200, seed))
    assert 0.93 * truth <= answer.load <= truth
    assert answer.limit.low <= truth
    assert answer.bound == ""


def said(answer: Found, slo: Slo = P99) -> str:
    """Return the words about a search for requests per second."""
    return Level("int8", str(slo), "requests/s", 200.0, answer).sentence()


def test_a_service_that_is_too_slow_holds_nothing() -> None:
    """The words count the slow runs, name their loads, and say what to do."""
    answer = found(32, lambda load, requests: Probe(round(requests), round(requests)))
    assert answer.load is None
    assert said(answer) == (
        "int8 is not shown to hold p99 <= 100 ms under any load: "
        "6 of 6 runs were too slow, at 0.5 to 16 requests/s. Give a looser limit"
    )


def tried(*, slow: Iterable[float], held: Iterable[float], unsent: Iterable[float]) -> tuple[Trial, ...]:
    """Return runs of 200 requests under these loads."""
    runs = [(slow, 60, False, False), (held, 2, True, False), (unsent, 60, False, True)]
    return tuple(Trial(load, 200, over, *flags) for loads, over, *flags in runs for load in loads)


def test_slow_bursts_that_leave_no_load_proven_are_told_as_they_are() -> None:
    """Runs at one load differ too much for a proof. One run that the generator could not send is not to blame."""
    p90 = Slo("p90", 0.9, 0.1)
    runs = tried(slow=range(116, 128, 2), held=range(60, 136), unsent=[141.0])
    answer = result(runs, Limit(Interval(128.0, None, None), None), whole=False)
    assert said(answer, p90) == (
        "int8 is not shown to hold p90 <= 100 ms under any load: 6 of 82 runs were too slow, at 116 to 126 requests/s, "
        "and the others held it, at 60 to 135 requests/s. "
        "Estimate, not proven: every run up to 115 requests/s held it; limit about 128, too uncertain for an interval. "
        "To prove a load, play longer runs (--round 10), use a quieter machine or give a looser limit"
    )
    assert Level("int8", str(p90), "requests/s", 200.0, answer).limited == ""


def test_an_unproven_limit_with_an_interval_shows_it() -> None:
    """An interval may have ends although no tried load lies safely below it. No ratio is made of such a limit."""
    runs = tried(slow=[80.0, 100.0], held=[90.0], unsent=[])
    answer = result(runs, Limit(Interval(70.0, 40.0, 95.0), None), whole=False)
    assert "requests/s. Estimate, not proven: limit 70 [40, 95]. To prove a load" in said(answer)
    unproven = Level("int8", str(P99), "requests/s", 200.0, answer)
    assert ratio(unproven, level("fp32", 60, 55, 65)) is None


def test_users_are_whole() -> None:
    """A search over users tries whole numbers only, and finds the last one that holds."""
    answer = found(16, lambda load, requests: Probe(round(requests), 0 if load <= 5 else round(requests)), whole=True)
    assert answer.load == 5
    assert all(trial.load == int(trial.load) for trial in answer.tried)


def test_no_more_users_than_there_are_is_a_lower_bound() -> None:
    """The words say `at least`, since no higher load was tried."""
    answer = found(16, lambda load, requests: Probe(round(requests), 0), whole=True)
    words = Level("int8", "p99 <= 100 ms", "users", 200.0, answer).sentence()
    assert words == "int8 holds p99 <= 100 ms at least up to 16 users (no higher load was tried)"


def test_a_service_that_holds_more_than_few_users_showed_is_searched_higher() -> None:
    """The ceiling rises while the highest load holds."""
    truth = 300 - math.log(100) / 0.1
    answer = found(150, independent(300))
    assert 0.93 * truth <= answer.load <= truth
    assert answer.bound == ""


def test_a_load_that_the_generator_cannot_send_is_no_limit_of_the_service() -> None:
    """The answer is a lower bound below that load, and the level says that the generator was the limit."""
    answer = found(220, independent(200, users=100))
    assert 80 <= answer.load < 100
    assert answer.bound == "the load generator was too slow for a higher one"
    level = Level("fp32", str(P99), "requests/s", 200.0, answer)
    assert level.limited.startswith("it could not put ")
    assert Level("fp32", str(P99), "requests/s", 200.0, found(220, independent(200))).limited == ""


def test_a_generator_that_can_send_nothing_blames_nobody() -> None:
    """No load was tried on the service, so nothing is said of it."""
    answer = found(220, independent(200, users=0))
    assert answer.load is None
    assert "under any load: generator limited: it could not put " in said(answer)


def level(arm: str, *limit: float, bound: str = "") -> Level:
    return Level(arm, "p99 <= 100 ms", "requests/s", 200.0, Found(limit[1], Interval(*limit), bound, ()))


def test_the_ratio_of_two_limits_has_an_interval() -> None:
    """Errors of 10 % and of 10 % make one of 14 %, on a logarithmic scale."""
    wide = math.exp(math.hypot(math.log(1.1), math.log(1.1)))
    made = ratio(level("int8", 300, 300 / 1.1, 300 * 1.1), level("fp32", 60, 60 / 1.1, 60 * 1.1))
    assert (made.ratio.low, made.ratio.estimate, made.ratio.high) == pytest.approx((5 / wide, 5, 5 * wide))
    assert made.sentence() == "int8 holds 5.00 x [4.37, 5.72] as many requests/s as fp32"


def test_a_lower_bound_has_no_ratio() -> None:
    """The limit itself is not known then."""
    assert ratio(level("int8", 300, 280, 320, bound="no higher load was tried"), level("fp32", 60, 55, 65)) is None


@pytest.mark.parametrize(("text", "slo"), [("p99=20ms", ("p99", 0.99, 0.02)), ("p95=1.5s", ("p95", 0.95, 1.5))])
def test_a_level_is_read(text: str, slo: tuple[str, float, float]) -> None:
    """Milliseconds and seconds are units of a level."""
    assert parse(text) == Slo(*slo)


@pytest.mark.parametrize("text", ["p99", "p99=20", "99=20ms", "p9=20ms"])
def test_a_level_that_makes_no_sense_is_refused(text: str) -> None:
    """The error shows an example."""
    with pytest.raises(ValueError, match="p99=20ms"):
        parse(text)

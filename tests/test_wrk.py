"""The statistics and the ports of benchmarks.wrk."""

import random
import socket

import pytest

from benchmarks.wrk import Round, free_port, median, ratio, written


def rounds(*rates: float) -> list[Round]:
    """Return rounds with these rates and a p50 of 1 ms."""
    return [Round(rate, 1.0) for rate in rates]


def test_a_ratio_is_taken_within_each_round() -> None:
    """A slow round of both contenders does not change their ratio, nor widen its interval."""
    times = ratio(rounds(200, 20, 400), rounds(100, 10, 200))
    assert (times.estimate, times.low, times.high) == (2.0, 2.0, 2.0)
    assert written(times) == "2.00 x (2.00 to 2.00)"


def test_the_interval_contains_the_rounds_that_differ() -> None:
    """Half of the rounds at 1 and half at 3 leave the ratio open between them."""
    times = ratio(rounds(*[100.0, 300.0] * 5), rounds(*[100.0] * 10))
    assert (times.low, times.high) == (1.0, 3.0)


def test_a_ratio_needs_pairs() -> None:
    """Different numbers of rounds are an error."""
    with pytest.raises(ValueError, match="shorter"):
        ratio(rounds(1, 2), rounds(1))


def test_a_median_is_taken_of_each_number() -> None:
    """Rate and p50 have medians of their own."""
    assert median([Round(1, 9, 0, 0), Round(2, 8, 0, 0), Round(3, 7, 0, 0)]) == Round(2, 8, 0, 0)


def test_ports_in_a_row_are_all_free(monkeypatch: pytest.MonkeyPatch) -> None:
    """A row of ports that holds a taken one is passed over: MLServer would start and then hang."""
    with socket.socket() as taken:
        second = free_port(5) + 1
        taken.bind(("127.0.0.1", second))
        choices = iter([second - 1, second, second + 1])
        monkeypatch.setattr(random, "randrange", lambda first, last: next(choices))
        assert free_port(3) == second + 1

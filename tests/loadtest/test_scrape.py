"""The reading of Prometheus metrics; prometheus_client writes them."""

import math

import pytest
from prometheus_client import CollectorRegistry, Counter, Histogram, generate_latest

from loadtest.client.scrape import Scrape, parse


def reading(observed: list[float]) -> Scrape:
    registry = CollectorRegistry()
    histogram = Histogram("h_seconds", "", ("variant",), buckets=(1, 2, 4), registry=registry)
    Counter("c", "", ("variant", "outcome"), registry=registry).labels("int8", "ok").inc(3)
    for value in observed:
        histogram.labels("int8").observe(value)
    return parse(generate_latest(registry).decode())


def test_a_difference_holds_only_what_came_in_between() -> None:
    """The mean of the difference is the mean of the new observations."""
    assert (reading([1, 3, 5]) - reading([1])).mean("h_seconds", variant="int8") == 4


def test_a_counter_is_summed_over_the_labels_that_are_not_named() -> None:
    """`total` with one of two labels sums over the other."""
    assert reading([]).total("c_total", variant="int8") == 3


def test_nothing_observed_is_no_mean_and_no_quantile() -> None:
    """Mean and quantile are None instead of zero."""
    nothing = reading([1]) - reading([1])
    assert nothing.mean("h_seconds") is None
    assert nothing.quantile("h_seconds", 0.5) is None


@pytest.mark.parametrize(("q", "expected"), [(0.25, 1.0), (0.5, 2.0), (0.75, 3.0), (1.0, 4.0)])
def test_a_quantile_is_interpolated_inside_its_bucket(q: float, expected: float) -> None:
    """One observation up to 1, one up to 2 and two up to 4 give the values of `histogram_quantile`."""
    assert reading([0.5, 1.5, 2.5, 3.5]).quantile("h_seconds", q) == pytest.approx(expected)


def test_a_quantile_past_the_last_edge_is_not_stated() -> None:
    """The bucket to infinity has no upper edge to interpolate to."""
    assert reading([9]).quantile("h_seconds", 0.5) is None


@pytest.mark.parametrize("strange", [math.nan, math.inf])
def test_a_sample_that_is_no_number_is_not_stated(strange: float) -> None:
    """Sums with it are 0 and means None, whether it is there before or after; other samples still count."""
    odd = Scrape(
        {
            ("c_total", frozenset({("variant", "int8")})): strange,
            ("c_total", frozenset({("variant", "fp32")})): 2.0,
            ("h_seconds_sum", frozenset()): strange,
            ("h_seconds_count", frozenset()): 2.0,
        }
    )
    for found in (odd, odd - Scrape({}), odd - odd, odd + odd):
        assert found.total("c_total", variant="int8") == 0
        assert found.mean("h_seconds") is None
    assert odd.total("c_total", variant="fp32") == 2


def test_about_keeps_one_variant() -> None:
    """The samples of int8 are not about fp32."""
    assert reading([1]).about("fp32").values == {}

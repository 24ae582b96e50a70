"""The bounds of benchmarks.front."""

import pytest

from benchmarks.front import Cost

COST = Cost(front=1e-3, engine=6e-3, behind=1e-3)


@pytest.mark.parametrize(
    ("cores", "bound"),
    [(4, (500, "cores")), (7, (875, "cores")), (8, (1000, "HTTP")), (16, (1000, "HTTP"))],
)
def test_the_lower_bound_counts(cores: int, bound: tuple[float, str]) -> None:
    """All cores together are the limit until the HTTP process has filled one of them."""
    assert COST.bound(cores) == (pytest.approx(bound[0]), bound[1])


def test_the_bounds_meet_where_the_http_process_is_full() -> None:
    """With eight times the processor time of the HTTP process in all, its core is full when the seven others are."""
    assert COST.crossing == pytest.approx(8)

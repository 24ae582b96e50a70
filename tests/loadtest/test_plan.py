"""The order and the length of the rounds."""

from collections.abc import Iterator
from itertools import islice

import numpy as np
import pytest

from loadtest.plan import Round, Timing, Workload, blocks, orders
from loadtest.timing import timing
from tests.loadtest.builders import arm, settings

ARMS = [arm(name) for name in ("fp32", "fp16", "int8")]
ONE, EIGHT = Workload(concurrency=1), Workload(concurrency=8)


def test_a_linear_drift_hits_all_arms_alike() -> None:
    """Over each pair of blocks every arm has the same mean position."""
    for first in range(0, 10, 2):
        pair = list(islice(orders(5, seed=4), first, first + 2))
        positions = [pair[0].index(number) + pair[1].index(number) for number in range(5)]
        assert positions == [4] * 5


def test_every_order_comes_up() -> None:
    """Each of three arms is the first one of a block about equally often."""
    firsts = np.bincount([order[0] for order in islice(orders(3, seed=1), 600)])
    assert firsts.min() > 150


def plan(*workloads: Workload, contended: bool = False) -> Iterator[list[Round]]:
    """Return the blocks of the three arms, with four rounds of each workload."""
    return blocks(ARMS, {w: Timing(0.0, 1.0, 4) for w in workloads}, seed=0, contended=contended)


def test_a_block_meets_every_arm_once_under_every_workload() -> None:
    """Two workloads and three arms give six different rounds."""
    block = next(plan(ONE, EIGHT))
    met = [(r.arms[0].name, r.workload.name) for r in block]
    assert len(met) == len(set(met)) == 6


def test_contended_rounds_load_all_arms_together() -> None:
    """With one workload, a block is one round of all arms."""
    assert [r.arms for r in next(plan(ONE, contended=True))] == [tuple(ARMS)]


def test_a_workload_with_fewer_rounds_skips_blocks_evenly() -> None:
    """Of twenty blocks, every fourth holds one of five rounds; the orders of its arms still come in pairs (ABBA)."""
    timings = {ONE: Timing(0.25, 1.0, 20), EIGHT: Timing(2.5, 5.0, 5)}
    slow = [
        [r for r in block if r.workload == EIGHT]
        for block in islice(blocks(ARMS, timings, seed=0, contended=False), 20)
    ]
    assert [number for number, rounds in enumerate(slow) if rounds] == [3, 7, 11, 15, 19]
    first, second = ([r.arms for r in slow[number]] for number in (3, 7))
    assert first == second[::-1]


@pytest.mark.parametrize(
    ("workload", "p50", "seconds", "rounds"),
    [
        (ONE, 0.01, 1.0, 20),
        (ONE, 0.7, 1.4, 14),
        (ONE, 2.5, 5.0, 5),
        (Workload(rate=0.25), 0.01, 8.0, 5),
    ],
)
def test_rounds_are_as_long_as_the_requests_ask_for(
    workload: Workload, p50: float, seconds: float, rounds: int
) -> None:
    """Two requests fit one after the other. A cell takes 20 s, or the five rounds that an interval needs."""
    assert timing(settings(duration=20.0), workload, p50) == Timing(max(0.25, p50), seconds, rounds)


def test_a_continuous_run_has_sixteen_long_blocks() -> None:
    """A closed workload of the same run keeps its short rounds."""
    options = settings(duration=640.0, continuous=True)
    assert timing(options, Workload(rate=50), 0.01) == Timing(0.25, 40.0, 16)
    assert timing(options, ONE, 0.01) == Timing(0.25, 1.0, 640)

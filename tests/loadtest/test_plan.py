"""The order of the rounds."""

from itertools import islice

import numpy as np

from loadtest.plan import Workload, blocks, orders
from tests.loadtest.builders import arm

ARMS = [arm(name) for name in ("fp32", "fp16", "int8")]


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


def test_a_block_meets_every_arm_once_under_every_workload() -> None:
    """Two workloads and three arms give six different rounds."""
    workloads = [Workload(concurrency=1), Workload(concurrency=8)]
    block = next(blocks(ARMS, workloads, seconds=1, settle=dict.fromkeys(workloads, 0.0), seed=0, contended=False))
    met = [(r.arms[0].name, r.workload.name) for r in block]
    assert len(met) == len(set(met)) == 6


def test_contended_rounds_load_all_arms_together() -> None:
    """With one workload, a block is one round of all arms."""
    workloads = [Workload(concurrency=1)]
    block = next(blocks(ARMS, workloads, seconds=1, settle=dict.fromkeys(workloads, 0.0), seed=0, contended=True))
    assert [r.arms for r in block] == [tuple(ARMS)]

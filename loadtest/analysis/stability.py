"""The drift of a cell over its rounds. A cell is one arm under one workload."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np

from loadtest.analysis.statistics import Floats, quantile
from loadtest.analysis.verdicts import baselines
from loadtest.plan import Arm, Workload
from loadtest.records import Played, rounds_of

PARTS = 3
LEVEL = 0.01
"""Level of all tests of a report together.

At a constant speed at most 2 % of the reports have a drift. The level is half of that: the noise of a queue grows as
the machine slows down, and then the order of the rounds is not quite exchangeable.
"""
ENOUGH_ROUNDS = 16
"""Rounds of a cell that the test needs: with fewer, too few orders differ for a chance as low as its level."""
PERMUTATIONS = (1000, 20_000)
"""Random orders of the first look, and of the second one, which only a chance of CLEAR or less gets."""
CLEAR = 0.02
SMALL = 0.02
"""Distance of a third's mean from the mean of all rounds below which a drift is named and leaves the cell valid.

The more rounds, the smaller is a drift that the test finds. A small one moves a ratio by less than 2 %.
"""
SATURATED = 0.95
"""Share of the due requests: an arm that answers fewer in time cannot hold an open workload."""
QUANTILES = {"p50": 0.50, "p95": 0.95}
METRICS = ("throughput", *QUANTILES)
EVERY = "drift: every ratio to this cell drifted, so it may be the one that changed"
HALF = 0.5
"""Answers that a round without any counts as, since its logarithm has to be finite."""


@dataclass(frozen=True)
class Drift:
    """A cell whose speed changed over its rounds."""

    arm: str
    workload: str
    reason: str
    is_small: bool
    """True if every third of the rounds lies within SMALL of the mean, so that the cell stays valid."""


@dataclass(frozen=True)
class Move:
    """A change over the rounds that chance does not explain, in words."""

    text: str
    is_small: bool


@dataclass(frozen=True)
class Side:
    """The rounds of one cell by their block."""

    arm: Arm
    rounds: Mapping[int, Played]

    def logarithm(self, metric: str, block: int) -> float:
        """Return the logarithm of a round's throughput or quantile of the latency; NaN if no request was answered."""
        played = self.rounds[block]
        if metric == "throughput":
            return float(np.log(max(HALF, played.answered) / played.round.seconds))
        value = quantile([request.latency for request in played.counted if not request.error], QUANTILES[metric])
        return float(np.log(value)) if value else float("nan")


def unstable(arms: Sequence[Arm], workloads: Sequence[Workload], played: Sequence[Played]) -> list[Drift]:
    """Return the cells that drifted so much that their numbers must not be used."""
    return [drift for drift in drifts(arms, workloads, played) if not drift.is_small]


def drifts(arms: Sequence[Arm], workloads: Sequence[Workload], played: Sequence[Played]) -> list[Drift]:
    """Return the cells that drifted, also by little.

    An arm with a baseline drifts if its ratio to the baseline does: a change of the machine's speed hits both rounds of
    a pair and makes no ratio wrong. An arm that nothing is compared with drifts if its own numbers do. A baseline
    drifts if the ratios of all its arms do, since then it may be the one that changed.

    The level of each test is LEVEL over the number of tests in the report (Bonferroni).
    """
    held_against = baselines(arms)
    named = {arm.name: arm for arm in arms}
    partners = {arm.name: named.get(held_against.get(arm.name, "")) for arm in arms}
    tested = [arm for arm in arms if partners[arm.name] or arm not in partners.values()]
    level = LEVEL / max(1, len(tested) * len(workloads) * len(METRICS))
    return list(chain.from_iterable(_drifts(tested, partners, workload, played, level) for workload in workloads))


def _drifts(
    tested: Sequence[Arm],
    partners: Mapping[str, Arm | None],
    workload: Workload,
    played: Sequence[Played],
    level: float,
) -> list[Drift]:
    """Return the cells of one workload that drifted."""
    sides = {arm.name: side(arm, workload, played) for arm in [*tested, *filter(None, partners.values())]}
    pairs = [(arm, partners[arm.name]) for arm in tested]
    moves = {a.name: drift(sides[a.name], sides[b.name] if b else None, level) for a, b in pairs}
    found = {name: move for name, move in moves.items() if move}
    for baseline in dict.fromkeys(b for _, b in pairs if b and b.name not in moves):
        own = [found.get(a.name) for a, b in pairs if b == baseline]
        if all(own):
            found[baseline.name] = Move(EVERY, any(move.is_small for move in own if move))
    return [Drift(name, workload.name, move.text, move.is_small) for name, move in found.items()]


def side(arm: Arm, workload: Workload, played: Sequence[Played]) -> Side:
    """Return one cell as a side of the comparison."""
    return Side(arm, {p.round.block: p for p in rounds_of(played, arm, workload)})


def drift(own: Side, baseline: Side | None, level: float) -> Move | None:
    """Return what moved between the thirds of the rounds, a small move only if none is large; None if nothing moved.

    The statistic is the largest distance of a third's mean from the mean of all rounds, of the logarithms. A
    permutation test gives its distribution: rounds start afresh, so at a constant speed their order is exchangeable
    (Good, "Permutation, Parametric and Bootstrap Tests of Hypotheses", 2005).
    """
    blocks = sorted(own.rounds.keys() & baseline.rounds.keys() if baseline else own.rounds)
    sides = [own, *([baseline] if baseline else [])]
    is_saturated = any(saturated(list(one.rounds.values())) for one in sides)
    moves = []
    for metric in METRICS[:1] if is_saturated else METRICS:
        values = np.array([own.logarithm(metric, block) for block in blocks])
        if baseline:
            values -= np.array([baseline.logarithm(metric, block) for block in blocks])
        subject = f"{metric} relative to {baseline.arm.name}" if baseline else metric
        moves.append(movement(subject, values[np.isfinite(values)], level))
    return min((move for move in moves if move), key=lambda move: move.is_small, default=None)


def movement(subject: str, values: Floats, level: float) -> Move | None:
    """Return how the means of the thirds of logarithms moved, if a random order explains it at most at `level`."""
    if len(values) < PARTS or chance(values) > level:
        return None
    moves = np.expm1([part.mean() - values.mean() for part in np.array_split(values, PARTS)])
    percent = ", ".join(f"{100 * move:+.1f} %" for move in moves)
    text = f"the thirds of the rounds lie {percent} from the mean, which has a chance below {100 * level:.2g} %"
    return Move(f"drift: {subject} changed, {text}", bool(np.abs(moves).max() < SMALL))


def chance(values: Floats) -> float:
    """Return the probability that a random order of the values puts a third as far from the mean as their own does."""
    first, second = PERMUTATIONS
    estimate = _chance(values, first)
    return estimate if estimate > CLEAR else _chance(values, second)


def _chance(values: Floats, permutations: int) -> float:
    """Return the share of random orders, with the own order counted as one of them (Phipson and Smyth, 2010)."""
    shuffled = np.random.default_rng(0).permuted(np.tile(values, (permutations, 1)), axis=1)
    own = farthest(values[np.newaxis])[0]
    return float((1 + np.sum(farthest(shuffled) >= own - 1e-12)) / (permutations + 1))


def farthest(orders: Floats) -> Floats:
    """Return the largest distance of a third's mean from the mean of all, for each row."""
    centred = orders - orders.mean(axis=1, keepdims=True)
    parts = [np.abs(part.mean(axis=1)) for part in np.array_split(centred, PARTS, axis=1)]
    return np.asarray(np.max(parts, axis=0), dtype=np.float64)


def saturated(rounds: Sequence[Played]) -> bool:
    """Return whether an open workload is more than the arm can hold: then latencies grow as long as a round lasts."""
    if not rounds or rounds[0].round.workload.rate is None:
        return False
    due, answered = sum(len(p.counted) for p in rounds), sum(p.answered for p in rounds)
    return answered < SATURATED * due

"""The energy of cells and of their comparisons, and the price of a million images."""

from collections.abc import Sequence

import numpy as np

from common.statistics import Interval
from loadtest.analysis.statistics import Floats, mean_ratio, unit_ratio
from loadtest.records import Played
from loadtest.report.cells import Cell, EnergyUse, RoundEnergy, RoundSummary
from loadtest.report.document import Price

THOUSAND, MILLION, HOUR = 1000, 1_000_000, 3600


def round_energy(played: Played, images_per_request: int) -> RoundEnergy | None:
    """Return the energy of one round and the images that were answered meanwhile; None if it was not measured."""
    if played.energy is None:
        return None
    answered = sum(not request.error for request in played.requests)
    return RoundEnergy(played.energy.joules, played.energy.seconds, answered * images_per_request)


def energy_use(rounds: Sequence[RoundSummary], idle_watts: float | None) -> EnergyUse | None:
    """Return the energy per 1,000 images over the rounds whose energy was measured; None if no image was answered."""
    measured = [one.energy for one in rounds if one.energy]
    joules, images = (np.array([getattr(one, name) for one in measured], float) for name in ("joules", "images"))
    per_image = mean_ratio(joules, images)
    if per_image is None:
        return None
    seconds = sum(one.seconds for one in measured)
    idle = None if idle_watts is None else THOUSAND * idle_watts * seconds / float(images.sum())
    return EnergyUse(scaled(per_image, THOUSAND), idle, float(joules.sum()) / seconds)


def energy_ratio(a: Sequence[RoundSummary], b: Sequence[RoundSummary], seed: int) -> Interval | None:
    """Return the joules per image of a over those of b, over paired rounds; None unless all of them were measured."""
    pairs = [(one.energy, other.energy) for one, other in zip(a, b, strict=True)]
    both = [(one, other) for one, other in pairs if one and other]
    if len(both) < len(pairs):
        return None
    sides: list[tuple[Floats, Floats]] = [
        (np.array([pair[side].joules for pair in both]), np.array([float(pair[side].images) for pair in both]))
        for side in (0, 1)
    ]
    return unit_ratio(sides[0], sides[1], seed=seed)


def prices(cells: Sequence[Cell], per_hour: float | None, images_per_request: int) -> list[Price]:
    """Return what a million images cost each arm under the valid workload in which it answers most images a second.

    A rate that an arm cannot hold counts for nothing: its requests would wait for ever.
    """
    if per_hour is None:
        return []
    best: dict[str, Cell] = {}
    for cell in cells:
        is_usable = not (cell.invalid or cell.saturated) and cell.images_per_second > 0
        if is_usable and (cell.arm not in best or cell.images_per_second > best[cell.arm].images_per_second):
            best[cell.arm] = cell
    return [_price(cell, per_hour, images_per_request) for cell in best.values()]


def _price(cell: Cell, per_hour: float, images_per_request: int) -> Price:
    seconds = np.array([one.seconds for one in cell.rounds])
    images = np.array([one.answered * images_per_request for one in cell.rounds])
    per_image = mean_ratio(seconds, images) or Interval(1 / cell.images_per_second, None, None)
    return Price(cell.arm, cell.workload, cell.images_per_second, scaled(per_image, MILLION * per_hour / HOUR))


def scaled(interval: Interval, factor: float) -> Interval:
    """Return an interval in another unit."""
    low, high = (None if bound is None else factor * bound for bound in (interval.low, interval.high))
    return Interval(factor * interval.estimate, low, high)

"""How many images a calibration needs: each observer on 16 to 2,048 training images, five seeds. Imports no torch."""

from dataclasses import dataclass, replace

import numpy as np
from tqdm import tqdm

from models.logits import sqnr
from models.study import observers, ranges, results, rounding, running
from models.study.building import Source
from models.study.recipes import RECIPES

COUNTS = (16, 64, 256, 512, 1024, 2048)
SEEDS = (0, 1, 2, 3, 4)
IMAGES = 500
"""Test images that each network answers, the first ones."""
BASE = "int8-least-squares"
"""The recipe whose observer and images vary."""


@dataclass(frozen=True)
class Trial:
    """One calibration."""

    observer: str
    calibration_images: int
    seed: int
    top1: float
    """0 to 1."""
    logit_sqnr_db: float


@dataclass(frozen=True)
class Spread:
    """The trials of one observer and number of images, over the seeds."""

    observer: str
    calibration_images: int
    sqnr: tuple[float, float, float]
    """Least, mean and most, in dB."""
    top1: tuple[float, float, float]


@dataclass(frozen=True)
class Sweep:
    """The trials, of all seeds that were measured."""

    identity: str
    images: int
    trials: tuple[Trial, ...]

    def spreads(self) -> list[Spread]:
        """Return the trials by observer and number of images."""
        keys = dict.fromkeys((trial.observer, trial.calibration_images) for trial in self.trials)
        found = []
        for observer, count in keys:
            group = [t for t in self.trials if (t.observer, t.calibration_images) == (observer, count)]
            sqnrs, top1s = ([getattr(t, name) for t in group] for name in ("logit_sqnr_db", "top1"))
            found.append(Spread(observer, count, _three(sqnrs), _three(top1s)))
        return found


def _three(values: list[float]) -> tuple[float, float, float]:
    return min(values), float(np.mean(values)), max(values)


def measure(
    source: Source,
    identity: str,
    seed: int,
    counts: tuple[int, ...] = COUNTS,
) -> Sweep:
    """Calibrate with every observer and number of images; answer the first test images with each."""
    network, shown, reference = source.network, source.images[:IMAGES], source.reference[:IMAGES]
    integers = {layer.spec.name: rounding.nearest(layer, network, RECIPES[BASE]) for layer in network}
    trials = []
    with tqdm(total=len(counts) * len(observers.OBSERVERS), desc=f"sweep, seed {seed}", unit="network") as bar:
        for count in counts:
            seen = observers.watch(network, ranges.images_for(source.data, count, seed))
            for observer in observers.OBSERVERS:
                found = ranges.chosen(network, replace(RECIPES[BASE], observer=observer), seen)
                built = rounding.assembled(network, integers, found, 8)
                logits = running.answers(running.forward(built, source.threads), shown, observer)
                top1 = float((logits.argmax(1) == source.labels[:IMAGES]).mean())
                trials.append(Trial(observer, count, seed, top1, results.finite(sqnr(reference, logits))))
                bar.update()
    return Sweep(identity, len(shown), tuple(trials))

"""The recipe of a training run: every number that its result depends on. Imports no torch."""

import math
from dataclasses import dataclass

from models import preprocess

LEAST_SIDE = 8
"""Smallest side of an image in pixels: the network halves it three times."""


@dataclass(frozen=True)
class Recipe:
    """The settings of a run, each a flag of `models.train`. A stopped run continues only with the same recipe."""

    epochs: int = 200
    batch_size: int = 256
    learning_rate: float = 0.2
    warmup: float = 0.05
    momentum: float = 0.9
    weight_decay: float = 5e-4
    label_smoothing: float = 0.0
    crop_padding: int = 4
    cutout: int = 0
    """Side in pixels of a square that is grey in every image (https://arxiv.org/abs/1708.04552); 0 for none."""
    cutmix: float = 0.5
    """Share of the batches in which a box of each image comes from another image (https://arxiv.org/abs/1905.04899)."""
    resolutions: str = "32@1"
    pruned: float = 0.0
    """Share of the easy images that an epoch leaves out."""
    pruned_until: float = 0.9
    """Progress after which every epoch has all images."""
    held_out: int = 0
    seed: int = 0
    start: str = ""
    """A checkpoint whose weights the run continues; empty for random weights."""

    def __post_init__(self) -> None:
        """Raise ValueError for a recipe that no run can follow, before a run has spent hours on it."""
        limits = {
            "epochs": self.epochs >= 1,
            "batch_size": self.batch_size >= 1,
            "learning_rate": self.learning_rate > 0,
            "warmup": 0 <= self.warmup < 1,
            "crop_padding": 0 <= self.crop_padding < preprocess.SIDE,
            "cutout": 0 <= self.cutout <= preprocess.SIDE,
            "cutmix": 0 <= self.cutmix <= 1,
            "pruned": 0 <= self.pruned < 1,
            "held_out": self.held_out >= 0,
            "seed": self.seed >= 0,
        }
        for name, holds in limits.items():
            if not holds:
                raise ValueError(f"--{name.replace('_', '-')}: {getattr(self, name)} is out of range")
        if self.pruned and self.cutmix:
            raise ValueError("--pruned: needs --cutmix 0, because it knows easy images by their loss, unmixed")
        until = [progress for _, progress in self.schedule()]
        if until != sorted(set(until)) or until[0] <= 0 or until[-1] != 1:
            raise ValueError(f"--resolutions: expected progress that rises to 1, got {self.resolutions!r}")

    def schedule(self) -> list[tuple[int, float]]:
        """Return the sides of the images in pixels, each with the progress at which it ends."""
        try:
            parts = (part.split("@") for part in self.resolutions.split(","))
            steps = [(int(side), float(until)) for side, until in parts]
        except ValueError:
            steps = []
        if not steps or not all(LEAST_SIDE <= side <= preprocess.SIDE for side, _ in steps):
            raise ValueError(f"--resolutions: expected SIDE@UNTIL,... such as 24@0.5,32@1, got {self.resolutions!r}")
        return steps

    def learning_rate_at(self, progress: float) -> float:
        """Return the learning rate at `progress` (0 to 1): linear warm-up, then cosine to zero."""
        if progress < self.warmup:
            return self.learning_rate * progress / self.warmup
        return self.learning_rate * 0.5 * (1 + math.cos(math.pi * (progress - self.warmup) / (1 - self.warmup)))

    def resolution_at(self, progress: float) -> int:
        """Return the side of the images in pixels at `progress` (0 to 1)."""
        return next((side for side, until in self.schedule() if progress < until), preprocess.SIDE)

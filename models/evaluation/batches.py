"""Time and memory of single batches, after warm-up, the variants taking turns."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import median

import numpy as np
from tqdm import tqdm

from models.cifar10 import Images
from models.engines.base import Engine


@dataclass(frozen=True)
class Batch:
    """One executed batch. Its seconds are device-synchronised."""

    variant: str
    batch_size: int
    inference_seconds: float
    wall_seconds: float
    """The whole call, with the copies to and from the device."""
    memory_bytes: int
    memory_kind: str


@dataclass(frozen=True)
class Summary:
    """All batches of one variant and size."""

    variant: str
    batch_size: int
    batches: int
    median_seconds: float
    least_seconds: float
    most_seconds: float
    images_per_second: float
    """From the median."""
    memory_bytes: int
    """The most bytes that a batch needed beyond the resident weights."""
    memory_kind: str


def measure(engines: Mapping[str, Engine], images: Images, sizes: Sequence[int], seed: int = 0) -> list[Batch]:
    """Run the images through every engine in whole batches of each size.

    Each engine is warmed up for a size and runs one batch untimed. Then each batch of images goes through all engines,
    in random order, so that a slow moment of the machine affects every variant.
    """
    random = np.random.default_rng(seed)
    found = []
    for size in sizes:
        batches = [np.ascontiguousarray(images[i : i + size]) for i in range(0, len(images) - size + 1, size)]
        for engine in engines.values():
            engine.warm_up([size])
            engine.run(batches[0])
        for batch in tqdm(batches, desc=f"batches of {size}", leave=False, disable=None):
            for name in random.permutation(list(engines)).tolist():
                done = engines[name].run(batch)
                found.append(
                    Batch(name, size, done.inference_seconds, done.wall_seconds, done.memory_bytes, done.memory_kind)
                )
    return found


def summarise(batches: Sequence[Batch]) -> list[Summary]:
    """Return one summary per size and variant."""
    groups: dict[tuple[int, str], list[Batch]] = {}
    for batch in batches:
        groups.setdefault((batch.batch_size, batch.variant), []).append(batch)
    return [_summary(group) for group in groups.values()]


def _summary(group: Sequence[Batch]) -> Summary:
    seconds = [batch.inference_seconds for batch in group]
    first, middle = group[0], median(seconds)
    return Summary(
        variant=first.variant,
        batch_size=first.batch_size,
        batches=len(group),
        median_seconds=middle,
        least_seconds=min(seconds),
        most_seconds=max(seconds),
        images_per_second=first.batch_size / middle,
        memory_bytes=max(batch.memory_bytes for batch in group),
        memory_kind=first.memory_kind,
    )

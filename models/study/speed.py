"""Latency and memory of what runs: `python -m models.study.speed int8` measures one variant and prints JSON.

Every variant runs in a process of its own, and the processes take turns in rounds, one at a time. Imports no torch.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from statistics import median

import numpy as np
import psutil
from tqdm import tqdm

from models import cifar10, files
from models.command import one_sentence
from models.loading import load

BATCHES = {1: 60, 32: 6, 256: 2}
"""Timed calls of a round by batch size."""
ROUNDS = 3


@dataclass(frozen=True)
class Turn:
    """One round of one variant."""

    seconds: dict[int, list[float]]
    """Of each call, by batch size."""
    resident_bytes: int
    """Of the process, after its batches."""


@dataclass(frozen=True)
class Speed:
    """All rounds of one variant."""

    name: str
    reason: str
    """Why it did not run; empty if it did."""
    milliseconds: dict[int, tuple[float, float, float]]
    """By batch size: the least, the median and the most of the rounds' medians."""
    resident_bytes: int
    """The most of the rounds."""


@dataclass(frozen=True)
class Speeds:
    """The speeds of every variant, measured together."""

    identity: str
    rows: tuple[Speed, ...]


def turn(name: str, checkpoint: Path, batches: dict[int, int]) -> Turn:
    """Load the variant and time its batches, each size after a warm-up."""
    engine = load(name, device="cpu", checkpoint=checkpoint)
    images, _ = cifar10.sample()
    seconds: dict[int, list[float]] = {}
    for size, calls in batches.items():
        pixels = images[np.arange(size) % len(images)]
        engine.warm_up([size])
        for _ in range(calls):
            began = time.perf_counter()
            engine.run(pixels)
            seconds.setdefault(size, []).append(time.perf_counter() - began)
    return Turn(seconds, psutil.Process().memory_info().rss)


def measure(
    variants: Sequence[tuple[str, str, Path]], identity: str, rounds: int = ROUNDS, batches: dict[int, int] = BATCHES
) -> Speeds:
    """Measure variants, each in turn in every round.

    Args:
        variants: name in the result, variant, and checkpoint or artifact.
        identity: of the result.
        rounds: of all variants.
        batches: timed calls of a round by batch size.
    """
    turns: dict[str, list[Turn]] = {name: [] for name, _, _ in variants}
    reasons: dict[str, str] = {}
    for name, variant, checkpoint in tqdm(list(variants) * rounds, desc="speed", unit="run", leave=False):
        command = [sys.executable, "-m", "models.study.speed", variant, "--checkpoint", str(checkpoint)]
        command += ["--batches", json.dumps(batches)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - our own module
        if done.returncode:
            reasons[name] = (done.stderr.strip().splitlines() or ["it was killed"])[-1]
            continue
        found = json.loads(done.stdout)
        seconds = {int(size): calls for size, calls in found["seconds"].items()}
        turns[name].append(Turn(seconds, found["resident_bytes"]))
    return Speeds(identity, tuple(_speed(name, found, reasons.get(name, "")) for name, found in turns.items()))


def _speed(name: str, turns: Sequence[Turn], reason: str) -> Speed:
    if not turns:
        return Speed(name, reason, {}, 0)
    milliseconds = {}
    for size in turns[0].seconds:
        medians = [1000 * median(one.seconds[size]) for one in turns]
        milliseconds[size] = min(medians), median(medians), max(medians)
    return Speed(name, "", milliseconds, max(one.resident_bytes for one in turns))


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m models.study.speed", description=__doc__)
    parser.add_argument("variant", help="a variant that the CPU runs")
    parser.add_argument("--checkpoint", type=Path, default=files.default_path(), help="(%(default)s)")
    parser.add_argument(
        "--batches", type=json.loads, default=json.dumps(BATCHES), help="timed calls by batch size (%(default)s)"
    )
    args = parser.parse_args(argv)
    with one_sentence():
        found = turn(args.variant, args.checkpoint, {int(size): calls for size, calls in args.batches.items()})
    print(json.dumps(asdict(found)))


if __name__ == "__main__":
    main()

"""The work of the study: a task for each recipe and measurement, and the results that they leave on disk."""

import argparse
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property, partial
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from common import machine
from models import checkpoint, cifar10, files
from models.engines import quantized
from models.engines.base import Engine
from models.engines.quantized import QuantizedLayer
from models.evaluation import statistics
from models.files import ARTIFACT_SUFFIX
from models.loading import load
from models.oracle import packed_logits
from models.reference import SUFFIX
from models.study import building, halves, qat, ranges, results, running, sensitivity, speed, sweep
from models.study.building import Source
from models.study.packing import packed
from models.study.recipes import RECIPES, REFERENCE, Recipe
from models.study.results import Outcome
from models.study.sensitivity import BITS, Sensitivity
from models.topology import Network

SPEED_ROWS = ("fp32-cpu", "bf16-cpu", "fp16-cpu", "int8", "int8-dynamic")
"""The variants that are timed, beside the artifact of the bound."""
BOUND = "int8-bound"
"""The recipe whose artifact has a speed of its own."""
QUICK_IMAGES, QUICK_STEPS, QUICK_BATCH, QUICK_LAYERS = 16, 2, 8, ("layer4.1.conv2", "fc")
"""Of `--quick`: images to calibrate on and to answer, training steps, their images, layers of the sensitivity."""
PARTS = ("sensitivity", "sweep", "speed")
"""The measurements besides the recipes."""


@dataclass(frozen=True)
class Task:
    """A part of the study."""

    name: str
    seconds: float
    """Expected on two cores with AVX2, for the estimate of the remaining time."""
    is_done: Callable[[], bool]
    run: Callable[[], None]


@dataclass(frozen=True)
class Measurement:
    """A measurement besides the recipes."""

    name: str
    """The file of its result; up to the first hyphen one of PARTS."""
    kind: type
    seconds: float
    """As in `Task`."""
    run: Callable[[str], object]
    """From the identity of the result to the result."""


@dataclass(frozen=True)
class Made:
    """The answers of a recipe, and what else its result says."""

    logits: NDArray[np.float32]
    file_bytes: int
    sha256: str
    seconds: float
    note: str


@dataclass(frozen=True)
class Study:
    """The settings of one study, and the work."""

    args: argparse.Namespace
    source: Source
    checkpoint_bytes: int
    half_bytes: int
    """Size of the checkpoint in half precision."""

    def place(self, *parts: str) -> Path:
        """Return the place of a result."""
        return Path(self.args.out, *parts)

    def identity(self, *parts: object) -> str:
        """Return a hash of the checkpoint, the images, the settings and `parts`."""
        of = self.source
        images = ranges.identity(of.calibration), ranges.identity(of.images)
        return results.identity_of(of.checkpoint_sha256, images, machine.has_vnni(), *parts)

    def identity_of_recipe(self, recipe: Recipe) -> str:
        """Return the identity of a recipe's result."""
        plan = self.source.plan(recipe) if recipe.is_trained else self.source.steps(recipe)
        return self.identity(recipe, plan)

    def outcome(self, recipe: Recipe) -> Outcome | None:
        """Return the recipe's result, if there is one of these settings."""
        return results.load(self.place("recipes", f"{recipe.name}.json"), Outcome, self.identity_of_recipe(recipe))

    def is_done(self, recipe: Recipe) -> bool:
        """Return whether the recipe has a result of these settings."""
        return self.outcome(recipe) is not None

    def tasks(self) -> list[Task]:
        """Return the whole work in order."""
        args = self.args
        has_gpu = torch.cuda.is_available()
        rows = [row for row in RECIPES.values() if row.name in args.recipes and (has_gpu or not row.needs_gpu)]
        rows = [row for row in rows if args.train or not row.is_trained or self.is_trained(row)]
        found = [
            Task(row.name, self.expected(row), partial(self.is_done, row), partial(self.recipe, row)) for row in rows
        ]
        parts = [part for part in self.measurements() if part.name.partition("-")[0] in args.parts]
        return found + [
            Task(part.name, part.seconds, partial(self.is_measured, part), partial(self.measure, part))
            for part in parts
        ]

    def measurements(self) -> tuple[Measurement, ...]:
        """Return the measurements besides the recipes; each has a file, so that a stop loses at most one."""
        seeds = sweep.SEEDS[:1] if self.args.quick else sweep.SEEDS
        return (
            *(Measurement(f"sensitivity-{bits}", Sensitivity, 500, partial(self.sensitivity, bits)) for bits in BITS),
            *(Measurement(f"sweep-{seed}", sweep.Sweep, 280, partial(self.sweep, seed)) for seed in seeds),
            Measurement("speed", speed.Speeds, 300, self.speed),
        )

    def identity_of_part(self, name: str) -> str:
        """Return the identity of a measurement's result."""
        return self.identity(name, self.args.quick)

    def is_measured(self, part: Measurement) -> bool:
        """Return whether a measurement has a result of these settings."""
        return results.load(self.place(f"{part.name}.json"), part.kind, self.identity_of_part(part.name)) is not None

    def measure(self, part: Measurement) -> None:
        """Make a measurement and keep its result."""
        results.save(self.place(f"{part.name}.json"), part.run(self.identity_of_part(part.name)))

    def is_trained(self, recipe: Recipe) -> bool:
        """Return whether the recipe's training is over. One that was stopped, or still runs, needs --train."""
        return qat.is_over(recipe.name, self.source.trained)

    def expected(self, recipe: Recipe) -> float:
        """Return the seconds that a recipe takes on two cores with AVX2, roughly."""
        share = len(self.source.images) / 10_000
        steps = self.source.steps(recipe)
        work = {"adaround": 0.4 * steps, "bound": 900 * share, "qat": 4.5 * steps, "distillation": 5.5 * steps}
        is_ready = recipe.is_trained and self.is_trained(recipe)
        return 120 * share + (0 if is_ready else work.get(recipe.algorithm, 10))

    def recipe(self, recipe: Recipe) -> None:
        """Build one recipe, let it answer the test images, and keep its result and its artifact."""
        source = self.source
        made = self.half(recipe) if recipe.dtype else self.variant(recipe) if recipe.variant else self.built(recipe)
        score = statistics.score(made.logits, source.labels, cifar10.CLASSES)
        paired = None
        if recipe.name != REFERENCE:
            paired = statistics.compare(made.logits, source.reference, source.labels, REFERENCE)
        outcome = Outcome(
            recipe.name, self.identity_of_recipe(recipe), score, paired, made.file_bytes, made.sha256, made.seconds,
            f"{machine.name()} ({machine.isa()}), {source.threads} threads",
            datetime.now(UTC).isoformat(timespec="seconds"), made.note,
        )  # fmt: skip
        results.save(self.place("recipes", f"{recipe.name}.json"), outcome)

    def variant(self, recipe: Recipe) -> Made:
        """Return the answers of a variant that the service has."""
        if recipe.name == REFERENCE:
            return Made(self.source.reference, self.checkpoint_bytes, "", 0.0, "")
        began = time.perf_counter()
        engine: Engine = load(
            recipe.variant, device="cpu", threads=self.source.threads, checkpoint=self.args.checkpoint
        )
        seconds = time.perf_counter() - began
        logits = running.answers(lambda images: engine.run(images).logits, self.source.images, recipe.name)
        return Made(logits, engine.info.serialized_bytes, "", seconds, "; ".join(engine.info.notes))

    def half(self, recipe: Recipe) -> Made:
        """Return the answers of the network in half precision, or by autocast, which keeps FP32 weights."""
        network, dtype = self.source.network, getattr(torch, recipe.dtype)
        run = halves.autocast(network, dtype) if recipe.needs_gpu else halves.forward(network, dtype)
        logits = running.answers(run, self.source.images, recipe.name)
        if recipe.needs_gpu:
            return Made(logits, self.checkpoint_bytes, "", 0.0, f"autocast on {torch.cuda.get_device_name()}")
        return Made(logits, self.half_bytes, "", 0.0, "simulated: every weight and output rounded, sums in FP32")

    def built(self, recipe: Recipe) -> Made:
        """Return the answers of a network that the study builds, and keep its artifact."""
        source = self.source
        done = building.build(recipe, source)
        logits = running.answers(running.forward(done.network, source.threads), source.images, recipe.name)
        content = packed(done.network)
        sha256 = source.checkpoint_sha256
        artifact = quantized.serialize(done.network, sha256, files.sha256(content), cifar10.CLASSES)
        files.write(self.artifact(recipe.name), artifact)
        files.write(files.beside(self.artifact(recipe.name), SUFFIX), self.sample)
        return Made(logits, len(content), files.sha256(content), done.seconds, done.note)

    @cached_property
    def sample(self) -> bytes:
        """Return the file of FP32 logits that the self-test of an artifact needs; it is the same for all."""
        return packed_logits(*checkpoint.load(self.args.checkpoint), cifar10.sample()[0])

    def artifact(self, name: str) -> Path:
        """Return the place of a recipe's INT8 artifact, which the service can serve."""
        return self.place("artifacts", f"{name}{ARTIFACT_SUFFIX}")

    def made(self, name: str) -> Network[QuantizedLayer] | None:
        """Return the network of a recipe with a result of these settings; None if there is none."""
        place = self.artifact(name)
        return quantized.deserialize(place)[0] if self.is_done(RECIPES[name]) and place.exists() else None

    def sensitivity(self, bits: int, identity: str) -> Sensitivity:
        """Measure the sensitivity of the layers at so many bits."""
        layers = QUICK_LAYERS if self.args.quick else tuple(layer.spec.name for layer in self.source.network)
        return sensitivity.measure(self.source, identity, layers, bits)

    def sweep(self, seed: int, identity: str) -> sweep.Sweep:
        """Measure the calibrations of one seed."""
        return sweep.measure(self.source, identity, seed, (QUICK_IMAGES,) if self.args.quick else sweep.COUNTS)

    def speed(self, identity: str) -> speed.Speeds:
        """Time what runs."""
        path = self.args.checkpoint
        rows = [(name, name, path) for name in SPEED_ROWS]
        if self.artifact(BOUND).exists():
            rows.append((BOUND, "int8", self.artifact(BOUND)))
        if self.args.quick:
            return speed.measure(rows[3:4], identity, 1, {1: 2})
        return speed.measure(rows, identity)

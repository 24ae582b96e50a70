"""One evaluation: load the variants, answer the labelled images, compare with the reference, time batches."""

import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from common import machine
from models import preprocess
from models.card import AS_IT_SAYS, Preparation
from models.engines.base import Engine
from models.evaluation import batches, corruptions, sheet, statistics
from models.evaluation.answers import answer
from models.evaluation.batches import Summary
from models.evaluation.report import CLEAN, Report, Result, VariantReport
from models.loading import load
from models.logits import Logits
from models.sample import Labelled
from models.variants import REFERENCES, VARIANTS


@dataclass(frozen=True)
class Plan:
    """What an evaluation does."""

    checkpoint: Path
    variants: tuple[str, ...]
    logits: Path | None
    """The folder of the logits, from which the same plan continues; None keeps none."""
    command: str
    """The command, for the report."""
    preparation: Preparation = AS_IT_SAYS
    device: str | None = None
    """Where the variants run that a GPU can run; None for a GPU if there is one."""
    threads: int | None = None
    loads: int = 3
    """Times that each variant is loaded, to time it."""
    batch_sizes: tuple[int, ...] = (256,)
    """The sizes of the timed batches. Answers use the largest."""
    batch_images: int = 1024
    """Images in the timed batches of each size."""
    corruptions: tuple[str, ...] = ()
    corrupted_images: int = 2000
    """Images for each corruption, from the first."""


@dataclass(frozen=True)
class Loaded:
    """An engine, and the seconds that each of its loads took."""

    engine: Engine
    seconds: tuple[float, ...]


def evaluate(plan: Plan, labelled: Labelled) -> tuple[Report, dict[str, bytes]]:
    """Carry out the plan; return its report, and the contact sheets by the names of their files.

    Args:
        plan: what to do. Of the results only the logits are written.
        labelled: the images, with labels for the network of the plan.

    Raises:
        CheckpointError, VariantUnavailable: something is missing; says what and how to get it.
        ValueError: there are fewer images than a batch has.
    """
    if max(plan.batch_sizes) > (count := min(plan.batch_images, len(labelled.labels))):
        raise ValueError(f"--batch-sizes: expected at most {count}, the number of images, got {max(plan.batch_sizes)}")
    loaded = {name: timed_loads(name, plan) for name in plan.variants}
    engines = {name: one.engine for name, one in loaded.items()}
    info = next(iter(engines.values())).info
    for engine in engines.values():
        engine.warm_up(plan.batch_sizes)  # before the answers, so that they come from the graphs that a service runs
    reference = next((name for name in REFERENCES if name in engines), plan.variants[0])
    results, sheets = results_by_condition(engines, labelled, reference, plan)
    pixels = preprocess.resized(labelled.images[: plan.batch_images], info.input_size, info.resize)
    timed = batches.measure(engines, pixels, plan.batch_sizes)
    report = Report(
        command=plan.command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        checkpoint=plan.checkpoint.name,
        checkpoint_sha256=info.checkpoint_sha256,
        data=labelled.source,
        classes=labelled.classes,
        reference=reference,
        machine=machine.describe("torch", "torchvision", "numpy", "openvino"),
        variants={name: of_variant(name, one, results, batches.summarise(timed)) for name, one in loaded.items()},
        batches=timed,
    )
    return report, sheets


def timed_loads(name: str, plan: Plan) -> Loaded:
    """Load a variant `plan.loads` times; `plan.device` applies to variants that a GPU can run."""
    place = plan.device if VARIANTS[name].gpu_builder else None
    seconds = []
    for _ in range(plan.loads):
        began = time.perf_counter()
        engine = load(
            name, device=place, threads=plan.threads, checkpoint=plan.checkpoint, preparation=plan.preparation
        )
        seconds.append(time.perf_counter() - began)
    return Loaded(engine, tuple(seconds))


def results_by_condition(
    engines: Mapping[str, Engine], labelled: Labelled, reference: str, plan: Plan
) -> tuple[dict[str, dict[str, Result]], dict[str, bytes]]:
    """Return each variant's result on the clean images and under each corruption, and the sheets of `draw`."""
    results: dict[str, dict[str, Result]] = {}
    sheets: dict[str, bytes] = {}
    for condition in (CLEAN, *plan.corruptions):
        seen = labelled if condition == CLEAN else labelled.first(plan.corrupted_images)
        images = seen.images if condition == CLEAN else corruptions.corrupt(seen.images, condition)
        logits = {
            name: answer(
                engine,
                images,
                max(plan.batch_sizes),
                plan.logits / f"{condition}-{name}.npz" if plan.logits else None,
                f"{name}, {condition}",
            )
            for name, engine in engines.items()
        }
        results[condition] = judged(logits, seen, reference)
        if condition == CLEAN:
            sheets = draw(results[condition], logits, reference, labelled)
        log(condition, results[condition])
    return results, sheets


def of_variant(
    name: str, loaded: Loaded, results: Mapping[str, Mapping[str, Result]], summaries: Sequence[Summary]
) -> VariantReport:
    """Return the part of the report on one variant."""
    own = {condition: by_variant[name] for condition, by_variant in results.items()}
    return VariantReport(loaded.engine.info, loaded.seconds, own, [s for s in summaries if s.variant == name])


def judged(logits: Mapping[str, Logits], labelled: Labelled, reference: str) -> dict[str, Result]:
    """Return each variant's result under one condition, paired with the reference's."""
    exact, labels = logits[reference], labelled.labels
    return {
        name: Result(
            statistics.score(found, labels, labelled.classes),
            statistics.compare(found, exact, labels, reference) if name != reference else None,
        )
        for name, found in logits.items()
    }


def draw(
    results: Mapping[str, Result], logits: Mapping[str, Logits], reference: str, labelled: Labelled
) -> dict[str, bytes]:
    """Return a contact sheet per variant: the images that exactly one of it and the reference gets right."""
    sheets: dict[str, bytes] = {}
    for name, result in results.items():
        if result.paired and result.paired.discordant:
            picks, names = (logits[reference].argmax(1), logits[name].argmax(1)), (reference, name)
            sheets[f"discordant-{name}.png"] = sheet.png(sheet.draw(labelled, picks, names, result.paired))
    return sheets


def log(condition: str, results: Mapping[str, Result]) -> None:
    """Print each variant's accuracy under a condition, above the progress bar."""
    accuracies = (f"{name} {result.score.top1.estimate:.2%}" for name, result in results.items())
    tqdm.write(", ".join([condition, *accuracies]), file=sys.stderr)

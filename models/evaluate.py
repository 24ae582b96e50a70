"""Evaluate variants on the CIFAR-10 test set: `python -m models.evaluate --variants fp32,int8 --data DIR --out DIR`.

Prints one table and writes it to OUT with every single result: evaluation.md, evaluation.json, and a contact sheet of
the images on which a variant and the reference differ. OUT also keeps the logits, so that the same command continues an
evaluation that was stopped.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from tqdm import tqdm

from common import machine
from models import cifar10, files, preprocess
from models.card import read_card
from models.cifar10 import Images, Labels
from models.command import one_sentence
from models.engines.base import Engine
from models.evaluation import batches, corruptions, record, sheet, statistics, table
from models.evaluation.answers import answer
from models.evaluation.batches import Summary
from models.evaluation.report import CLEAN, Report, Result, VariantReport, record_entry
from models.flags import add_preparation, device, positive, preparation_of
from models.loading import load
from models.logits import Logits
from models.variants import REFERENCES, VARIANTS, native_variants

LOADS = 3
"""Times that each variant is loaded, to time it."""


@dataclass(frozen=True)
class Loaded:
    """An engine, and the seconds that each of its loads took."""

    engine: Engine
    seconds: tuple[float, ...]


def evaluate(args: argparse.Namespace, command: str) -> tuple[Report, dict[Path, bytes]]:
    """Run the whole evaluation that the flags describe; return its report, and its contact sheets by their places.

    Of the results it writes only the logits, from which the same command continues.

    Raises:
        DatasetError, CheckpointError, VariantUnavailable: something is missing; says what and how to get it.
    """
    images, labels = cifar10.read(args.data, "test")
    images, labels = images[: args.images], labels[: args.images]
    order = columns(args.checkpoint or files.default_path())
    loaded = {name: timed_loads(name, args) for name in args.variants}
    engines = {name: one.engine for name, one in loaded.items()}
    args.out.mkdir(parents=True, exist_ok=True)
    for engine in engines.values():
        engine.warm_up(args.batch_sizes)  # before the answers, so that they come from the graphs that a service runs
    reference = next((name for name in REFERENCES if name in engines), args.variants[0])
    results, sheets = results_by_condition(engines, images, labels, order, reference, args)
    side = next(iter(engines.values())).info.input_size
    timed = batches.measure(engines, preprocess.resized(images[: args.batch_images], side), args.batch_sizes)
    report = Report(
        command=command,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        checkpoint=(args.checkpoint or files.default_path()).name,
        checkpoint_sha256=next(iter(engines.values())).info.checkpoint_sha256,
        data="CIFAR-10 test_batch.bin, in official order, SHA-1 verified",
        reference=reference,
        machine=machine.describe("torch", "torchvision", "numpy", "openvino"),
        variants={name: of_variant(name, one, results, batches.summarise(timed)) for name, one in loaded.items()},
        batches=timed,
    )
    return report, sheets


def results_by_condition(
    engines: Mapping[str, Engine],
    images: Images,
    labels: Labels,
    order: Sequence[int],
    reference: str,
    args: argparse.Namespace,
) -> tuple[dict[str, dict[str, Result]], dict[Path, bytes]]:
    """Return each variant's result on the clean images and under each corruption, and the sheets of `draw`."""
    results: dict[str, dict[str, Result]] = {}
    sheets: dict[Path, bytes] = {}
    for condition in (CLEAN, *args.corruptions):
        count = args.images if condition == CLEAN else args.corrupted_images
        seen = images if condition == CLEAN else corruptions.corrupt(images[:count], condition)
        logits = {name: answered(engine, seen, condition, args)[:, order] for name, engine in engines.items()}
        results[condition] = judged(logits, labels[:count], reference)
        if condition == CLEAN:
            sheets = draw(results[condition], logits, reference, images, labels, args.out)
        log(condition, results[condition])
    return results, sheets


def of_variant(
    name: str, loaded: Loaded, results: Mapping[str, Mapping[str, Result]], summaries: Sequence[Summary]
) -> VariantReport:
    """Return the part of the report on one variant."""
    own = {condition: by_variant[name] for condition, by_variant in results.items()}
    return VariantReport(loaded.engine.info, loaded.seconds, own, [s for s in summaries if s.variant == name])


def columns(path: Path) -> list[int]:
    """Return the index of each of CIFAR-10's classes among the checkpoint's, in CIFAR-10's order.

    Raises:
        CheckpointError: the checkpoint has other classes, which the test set cannot judge.
    """
    classes = read_card(path).classes or cifar10.CLASSES
    if set(classes) != set(cifar10.CLASSES):
        raise files.CheckpointError(
            f"{path} has the classes {', '.join(classes)}; the test set is of CIFAR-10's: {', '.join(cifar10.CLASSES)}"
        )
    return [classes.index(name) for name in cifar10.CLASSES]


def timed_loads(name: str, args: argparse.Namespace) -> Loaded:
    """Load a variant LOADS times; `--device` applies to variants that a GPU can run."""
    place = args.device if VARIANTS[name].gpu_builder else None
    seconds = []
    for _ in range(LOADS):
        began = time.perf_counter()
        engine = load(
            name,
            device=place,
            threads=args.threads,
            checkpoint=args.checkpoint,
            preparation=preparation_of(args),
        )
        seconds.append(time.perf_counter() - began)
    return Loaded(engine, tuple(seconds))


def answered(engine: Engine, images: Images, condition: str, args: argparse.Namespace) -> Logits:
    """Return the engine's logits on the images, kept in OUT/logits."""
    name = engine.variant.name
    place = args.out / "logits" / f"{condition}-{name}.npz"
    return answer(engine, images, max(args.batch_sizes), place, f"{name}, {condition}")


def judged(logits: Mapping[str, Logits], labels: Labels, reference: str) -> dict[str, Result]:
    """Return each variant's result under one condition, paired with the reference's."""
    exact = logits[reference]
    return {
        name: Result(
            statistics.score(found, labels),
            statistics.compare(found, exact, labels, reference) if name != reference else None,
        )
        for name, found in logits.items()
    }


def draw(
    results: Mapping[str, Result],
    logits: Mapping[str, Logits],
    reference: str,
    images: Images,
    labels: Labels,
    out: Path,
) -> dict[Path, bytes]:
    """Return by place a contact sheet per variant: the images that exactly one of it and the reference gets right."""
    sheets: dict[Path, bytes] = {}
    for name, result in results.items():
        if result.paired and result.paired.discordant:
            picks, names = (logits[reference].argmax(1), logits[name].argmax(1)), (reference, name)
            drawn = sheet.draw(images, labels, picks, names, result.paired)
            sheets[out / f"discordant-{name}.png"] = sheet.png(drawn)
    return sheets


def log(condition: str, results: Mapping[str, Result]) -> None:
    """Print each variant's accuracy under a condition, above the progress bar."""
    accuracies = (f"{name} {result.score.top1.estimate:.2%}" for name, result in results.items())
    tqdm.write(", ".join([condition, *accuracies]), file=sys.stderr)


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the flags, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m models.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--variants",
        type=variants,
        default=",".join(("fp32", "int8", *native_variants(machine.usable_flags()))),
        help=f"comma-separated, of: {', '.join(VARIANTS)} (%(default)s)",
    )
    add("--data", type=Path, default=files.data_root(), help="holds cifar-10-batches-bin/ (%(default)s)")
    add("--out", type=Path, default=Path("runs/evaluate"), help="folder for the results (%(default)s)")
    add("--checkpoint", type=Path, help="weights to evaluate instead of the bundled ones")
    add(
        "--device",
        type=device,
        help="cpu, cuda or cuda:N, for the variants that a GPU can run (a GPU if there is one)",
    )
    add("--threads", type=positive, help="CPU threads (all available cores)")
    add("--images", type=positive, default=10_000, help="test images, from the first (%(default)s)")
    add("--batch-sizes", type=sizes, default="256", help="of the timed batches; answers use the largest (%(default)s)")
    add("--batch-images", type=positive, default=1024, help="images in the timed batches (%(default)s)")
    add(
        "--corruptions",
        type=conditions,
        default="none",
        help=f"none, all ({', '.join(corruptions.ALL)}) or some",
    )
    add("--corrupted-images", type=positive, default=2000, help="images for each corruption (%(default)s)")
    add("--record", action="store_true", help="also write the record beside the checkpoint, for GET /variants")
    add_preparation(parser)
    args = parser.parse_args(argv)
    if max(args.batch_sizes) > min(args.batch_images, args.images):
        parser.error("--batch-sizes: expected at most --batch-images and --images, so that each size has one batch")
    return args


def variants(text: str) -> tuple[str, ...]:
    """Parse `--variants`."""
    names = tuple(name.strip() for name in text.split(","))
    if set(names) - set(VARIANTS) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"expected distinct names of {', '.join(VARIANTS)}, got {text!r}")
    return names


def sizes(text: str) -> tuple[int, ...]:
    """Parse `--batch-sizes`."""
    return tuple(positive(part) for part in text.split(","))


def conditions(text: str) -> tuple[str, ...]:
    """Parse `--corruptions`."""
    try:
        return corruptions.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(argv: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if argv is None else argv)
    args = parse(given)
    path = args.checkpoint or files.default_path()
    with one_sentence():
        report, contents = evaluate(args, f"python -m models.evaluate {shlex.join(given)}".strip())
        contents[args.out / "evaluation.json"] = report.to_json()
        contents[args.out / "evaluation.md"] = table.document(report).encode()
        if args.record:
            entries = {name: record_entry(report, name) for name in report.variants}
            contents[files.beside(path, record.SUFFIX)] = record.content(path, entries)
        files.write_all(contents)
    print(table.main_table(report))
    if args.record:
        print(f"{files.beside(path, record.SUFFIX)}: the record of each variant")
    print(f"{args.out / 'evaluation.md'} has the rest: classes, corruptions, the images that differ")


if __name__ == "__main__":
    main()

"""Evaluate variants on the CIFAR-10 test set: `python -m models.evaluate --variants fp32,int8 --data DIR --out DIR`.

Prints one table and writes it, with every single result, to OUT: evaluation.md, evaluation.json, and a contact sheet of
the images on which variants differ. Logits are kept in OUT, too: the same command goes on where it was stopped.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from common import machine
from models import cifar10, files, preprocess
from models.card import read_card
from models.cifar10 import Images, Labels
from models.engines.base import Engine
from models.evaluation import batches, corruptions, record, sheet, statistics, table
from models.evaluation.answers import answer
from models.evaluation.report import CLEAN, Report, Result, VariantReport, record_entry
from models.flags import add_preparation, device, positive, preparation_of
from models.loading import load
from models.variants import CPU_BACKENDS, VARIANTS, VariantUnavailable

LOADS = 3
REFERENCES = ("fp32", "fp32-cpu")

Logits = NDArray[np.float32]


def evaluate(args: argparse.Namespace) -> Report:
    """The whole study, as the flags say.

    Raises:
        DatasetError, CheckpointError, VariantUnavailable: something is missing; says what and how to get it.
    """
    images, labels = cifar10.read(args.data, "test")
    images, labels = images[: args.images], labels[: args.images]
    args.columns = columns(args.checkpoint or files.default_path())
    loaded = {name: timed_loads(name, args) for name in args.variants}
    engines = {name: engine for name, (engine, _) in loaded.items()}
    report = Report(
        command=f"python -m models.evaluate {shlex.join(args.given)}".strip(),
        date=datetime.now(UTC).isoformat(timespec="seconds"),
        checkpoint=(args.checkpoint or files.default_path()).name,
        checkpoint_sha256=next(iter(engines.values())).info.checkpoint_sha256,
        data="CIFAR-10 test_batch.bin, in official order, SHA-1 verified",
        reference=next((name for name in REFERENCES if name in engines), args.variants[0]),
        machine=machine.describe("torch", "torchvision", "numpy", "openvino"),
        variants={name: VariantReport(engine.info, seconds) for name, (engine, seconds) in loaded.items()},
    )
    args.out.mkdir(parents=True, exist_ok=True)
    for engine in engines.values():
        engine.warm_up(args.batch_sizes)  # before the answers, so that they come from what a service would run
    for condition in (CLEAN, *args.corruptions):
        judge(report, engines, images, labels, condition, args)
    side = next(iter(engines.values())).info.input_size
    timed = preprocess.resized(images[: args.batch_images], side)
    report.batches = batches.measure(engines, timed, args.batch_sizes)
    for summary in batches.summarise(report.batches):
        report.variants[summary.variant].batches.append(summary)
    return report


def columns(path: Path) -> list[int]:
    """Where the checkpoint has CIFAR-10's classes among its own, in CIFAR-10's order.

    Raises:
        CheckpointError: its classes are others, so that the test set says nothing about it.
    """
    classes = read_card(path).classes
    if set(classes) != set(cifar10.CLASSES):
        raise files.CheckpointError(
            f"{path} has the classes {', '.join(classes)}; the test set is of CIFAR-10's: {', '.join(cifar10.CLASSES)}"
        )
    return [classes.index(name) for name in cifar10.CLASSES]


def timed_loads(name: str, args: argparse.Namespace) -> tuple[Engine, tuple[float, ...]]:
    """The engine, loaded LOADS times, and how long each took."""
    place = None if VARIANTS[name].device == "cpu" else args.device
    seconds = []
    for _ in range(LOADS):
        began = time.perf_counter()
        engine = load(
            name,
            device=place,
            threads=args.threads,
            checkpoint=args.checkpoint,
            preparation=preparation_of(args),
            cpu_backend=args.cpu_backend,
        )
        seconds.append(time.perf_counter() - began)
    return engine, tuple(seconds)


def judge(
    report: Report,
    engines: dict[str, Engine],
    images: Images,
    labels: Labels,
    condition: str,
    args: argparse.Namespace,
) -> None:
    """Every engine's answers under one condition, into the report."""
    if condition != CLEAN:
        images, labels = images[: args.corrupted_images], labels[: args.corrupted_images]
        images = corruptions.corrupt(images, condition)
    logits: dict[str, Logits] = {}
    for name, engine in engines.items():
        place = args.out / "logits" / f"{condition}-{name}.npz"
        found = answer(engine, images, max(args.batch_sizes), place, f"{name}, {condition}")
        logits[name] = found[:, args.columns]
    exact = logits[report.reference]
    for name, found in logits.items():
        paired = statistics.compare(found, exact, labels, report.reference) if name != report.reference else None
        report.variants[name].results[condition] = Result(statistics.score(found, labels), paired)
        if condition == CLEAN and paired and paired.discordant:
            picks, names = (exact.argmax(1), found.argmax(1)), (report.reference, name)
            sheet.write(sheet.draw(images, labels, picks, names, paired), args.out / f"discordant-{name}.png")
    tqdm.write(
        ", ".join(
            [condition, *(f"{n} {v.results[condition].score.top1.estimate:.2%}" for n, v in report.variants.items())]
        ),
        file=sys.stderr,
    )


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="python -m models.evaluate", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add(
        "--variants",
        type=variants,
        default="fp32,int8",
        help=f"comma-separated, of: {', '.join(VARIANTS)} (%(default)s)",
    )
    add("--data", type=Path, default=cifar10.default_root(), help="holds cifar-10-batches-bin/ (%(default)s)")
    add("--out", type=Path, default=Path("runs/evaluate"), help="where everything goes (%(default)s)")
    add("--checkpoint", type=Path, help="weights to evaluate instead of the bundled ones")
    add(
        "--device",
        type=device,
        help="cpu, cuda or cuda:N for the variants that can run there (as models.variants says)",
    )
    add("--threads", type=positive, help="CPU threads (the cores available)")
    add("--cpu-backend", choices=CPU_BACKENDS, help="what the CPU variants run on (the first that is installed)")
    add("--images", type=positive, default=10_000, help="test images, from the first (%(default)s)")
    add("--batch-sizes", type=sizes, default="256", help="of the timed batches; answers use the largest (%(default)s)")
    add("--batch-images", type=positive, default=1024, help="images that are timed in batches (%(default)s)")
    add(
        "--corruptions",
        type=conditions,
        default="none",
        help=f"none, all ({', '.join(corruptions.ALL)}) or some",
    )
    add("--corrupted-images", type=positive, default=2000, help="images under each corruption (%(default)s)")
    add("--record", action="store_true", help="also write the numbers beside the checkpoint, for GET /variants")
    add_preparation(parser)
    args = parser.parse_args(argv)
    args.given = list(sys.argv[1:] if argv is None else argv)
    if max(args.batch_sizes) > min(args.batch_images, args.images):
        parser.error("--batch-sizes: expected at most --batch-images and --images, one batch of each size at least")
    return args


def variants(text: str) -> tuple[str, ...]:
    names = tuple(name.strip() for name in text.split(","))
    if set(names) - set(VARIANTS) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"expected distinct names of {', '.join(VARIANTS)}, got {text!r}")
    return names


def sizes(text: str) -> tuple[int, ...]:
    return tuple(positive(part) for part in text.split(","))


def conditions(text: str) -> tuple[str, ...]:
    try:
        return corruptions.parse(text)
    except ValueError as error:
        raise argparse.ArgumentTypeError(str(error)) from None


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    try:
        report = evaluate(args)
    except (cifar10.DatasetError, files.CheckpointError, VariantUnavailable) as error:
        sys.exit(f"error: {error}")
    report.write(args.out / "evaluation.json")
    files.write(args.out / "evaluation.md", table.document(report).encode())
    print(table.main_table(report))
    if args.record:
        path = args.checkpoint or files.default_path()
        entries = {name: record_entry(report, name) for name in report.variants}
        print(f"{record.write(path, entries)}: the record of each variant")
    print(f"{args.out / 'evaluation.md'} has the rest: classes, corruptions, the images that differ")


if __name__ == "__main__":
    main()

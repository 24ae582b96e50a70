"""Prepare a network and pictures of your own for the service: `python -m models.prepare mine.pt --images photos/`.

Writes one folder, which the service, the evaluation and the load test take wherever they take a checkpoint: the weights
as safetensors with their card, INT8's calibration, reference logits for the self-test, a labelled sample, the held-out
pictures, the split by file name and SHA-256, and the evaluation of every precision that runs on this machine.

The pictures lie in one subfolder for each class, as torchvision's ImageFolder has them. Where the card or --classes
names the classes, the subfolders are matched by name; else the sorted subfolders are the classes. A part of each class
calibrates INT8; the rest is held out and judges accuracy. Pictures without subfolders only calibrate.
"""

import argparse
import shlex
import sys
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from safetensors.numpy import save as serialize
from tqdm import tqdm

from common import machine
from common.statistics import mcnemar
from models import accuracy, checkpoint, files, labelled, pictures, prepared
from models.calibrate import MOST_IMAGES
from models.card import Preparation, read_card
from models.command import one_sentence
from models.engines.device import gpus
from models.engines.network import fold
from models.evaluation import record, table
from models.evaluation.images import of_pictures
from models.evaluation.report import CLEAN, Report, record_entry
from models.evaluation.run import Plan, evaluate
from models.files import CheckpointError
from models.flags import add_input, device, input_of, positive, variants, whole
from models.loading import load
from models.prepared import NAME, Material
from models.split import MOST_HELD_OUT, SHARE, split
from models.variants import DEFAULT_VARIANTS, VARIANTS, native_variants, with_references

BATCH_SIZES = (1, 32)
"""The sizes of the timed batches, as far as there are so many pictures."""
BATCH_IMAGES = 64
"""Pictures in the timed batches of each size."""


POOL_IMAGES = 60
"""Held-out pictures on which both choices of max-pool are tried."""
POOL_LEVEL = 0.001
"""A difference between the two counts if chance gives one as large more rarely."""


def gathered(args: argparse.Namespace) -> Material:
    """Read the network and the pictures that the flags name.

    Raises:
        CheckpointError: the network does not fit, no picture can be read, or their classes are different.
    """
    path = files.resolve(args.checkpoint)
    state, card = checkpoint.load(path, input_of(args))
    network = fold(state, card)
    found = labelled.read(args.images, shows_progress=True)
    if found.classes:
        card = replace(card, classes=labelled.match(found, card.classes, network.architecture.classes))
    weights = files.read(path) if path.suffix == ".safetensors" else serialize(state)
    card = replace(card.completed(network), sha256=files.sha256(weights), bytes=len(weights))
    parts, inputs = split(found, card.labels, args.held_out, args.seed), network.input
    judging, unread = None, tuple[str, ...]()
    calibrating = pictures.decoded(
        tqdm([picture.place for picture in parts.calibration], "calibration", unit="img", leave=False, disable=None),
        inputs.side, MOST_IMAGES, inputs.resize,
    )  # fmt: skip
    if not calibrating.pixels:
        raise CheckpointError(f"{args.images}: no picture to calibrate on; {pictures.sentence(calibrating.unread)}")
    if parts.held_out:
        judging, held_out, unread = of_pictures(
            parts.held_out, card.labels, (inputs.side, inputs.resize), f"held-out pictures of {args.images.name}"
        )
        parts = replace(parts, held_out=held_out)
    parts = replace(
        parts,
        calibration=tuple(parts.calibration[index] for index in calibrating.indices),
        left_out=(*parts.left_out, *calibrating.unread, *unread),
    )
    return Material(network, state, weights, card, parts, np.stack(calibrating.pixels), judging)


def runs_here() -> tuple[str, ...]:
    """Return the variants that this machine runs at full speed, with the references of a fair comparison."""
    count = len(gpus())
    on_gpu = [name for name, row in VARIANTS.items() if row.gpu_builder and row.place(count) == "cuda"] if count else []
    on_cpu = [name for name in DEFAULT_VARIANTS if VARIANTS[name].place(count) == "cpu"]
    native = native_variants(machine.usable_flags())
    return with_references(tuple(dict.fromkeys((*on_gpu, *on_cpu, *native))), count)


def evaluated(
    material: Material, folder: Path, args: argparse.Namespace, command: str, *, is_doubtful: bool
) -> Report | None:
    """Evaluate the network in `folder` on the held-out pictures, and write the results there; None without labels.

    The accuracy goes onto a card without one, unless it is doubtful that the network is served as it was trained.
    """
    judging = material.judging
    if judging is None:
        return None
    count = min(BATCH_IMAGES, len(judging.labels))
    plan = Plan(
        checkpoint=folder / f"{NAME}.safetensors",
        variants=args.variants or runs_here(),
        logits=None,
        command=command,
        device=args.device,
        threads=args.threads,
        loads=1,
        batch_sizes=tuple(size for size in BATCH_SIZES if size <= count),
        batch_images=count,
    )
    report, sheets = evaluate(plan, judging)
    entries = {name: record_entry(report, name) for name in report.variants}
    card, exact = material.card, report.variants[report.reference].results[CLEAN].score
    if card.test_accuracy is None and not is_doubtful and not doubt(material, report):
        card = replace(
            card, test_accuracy=exact.top1.estimate, test_images=exact.images,
            note=f"test_accuracy is that of {report.reference} on the pictures that `{command}` held out",
        )  # fmt: skip
    written = {f"{NAME}.json": prepared.card_json(card), "evaluation.md": table.document(report).encode()}
    written[NAME + record.SUFFIX] = record.content(plan.checkpoint, entries)
    prepared.put(folder, sheets | written)
    return report


def doubt(material: Material, report: Report) -> str:
    """Return what is wrong with the accuracy of the reference; empty if nothing is."""
    exact = report.variants[report.reference].results[CLEAN].score
    right = round(exact.top1.estimate * exact.images)
    return accuracy.doubt(right, exact.images, len(report.classes), material.card.test_accuracy)


def with_other_pool(material: Material, folder: Path, args: argparse.Namespace) -> str:
    """Return a warning if the network is clearly better with the other choice of max-pool, where nobody said which.

    The exact test of McNemar compares both on the first POOL_IMAGES held-out pictures, in FP32 on the CPU.
    """
    judging = material.judging
    if judging is None or read_card(args.checkpoint, input_of(args)).max_pool is not None:
        return ""
    seen, is_pooled = judging.first(POOL_IMAGES), material.network.architecture.max_pool
    right = []
    for has_pool in (is_pooled, not is_pooled):
        said = Preparation(max_pool=has_pool)
        engine = load("fp32-cpu", threads=args.threads, checkpoint=folder, preparation=said)
        right.append(engine.run(seen.images).logits.argmax(1) == seen.labels)
    as_it_is, other = right
    p_value = mcnemar(int((as_it_is & ~other).sum()), int((other & ~as_it_is).sum()))
    if other.sum() <= as_it_is.sum() or p_value > POOL_LEVEL:
        return ""
    flag = "--no-max-pool" if is_pooled else "--max-pool"
    return (
        f"WARNING: with {flag}, {other.mean():.1%} of {len(other)} pictures are right instead of {as_it_is.mean():.1%}"
    )


def remark(material: Material, report: Report, args: argparse.Namespace) -> str:
    """Return a sentence on the accuracy of the reference that names what was assumed; a warning if it is in doubt."""
    reference = report.variants[report.reference]
    assumed = "; ".join(map(str, accuracy.assumptions(reference.info, read_card(args.checkpoint), input_of(args))))
    share = f"{reference.results[CLEAN].score.top1.estimate:.1%}"
    if wrong := doubt(material, report):
        return f"WARNING: {report.reference} is right on {share}, {wrong}. Is what was assumed right? {assumed}"
    return f"If you expected more than {share} of {report.reference}, check what was assumed: {assumed}"


def told(material: Material) -> list[str]:
    """Return sentences about the network and its pictures."""
    card, parts, inputs = material.card, material.split, material.network.input
    how = (
        f"resized to {inputs.resize}, then cut to {inputs.side}"
        if inputs.resize
        else f"cut square, then resized to {inputs.side}"
    )
    judging, calibrating = len(parts.held_out), len(parts.calibration)
    said = [
        f"network: {card.architecture}, {labelled.listed(card.labels)}",
        f"images: {how} pixels, mean {inputs.mean}, std {inputs.std}",
        f"pictures: {parts.folder}: {calibrating:,} calibrate INT8, {judging:,} are held out, with seed {parts.seed}",
    ]
    if parts.left_out:
        said.append(pictures.sentence(parts.left_out, "are left out"))
    if not judging:
        said.append("no subfolders name classes, so nothing was held out, and no accuracy is judged")
    return said


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """Return the flags, checked."""
    parser = argparse.ArgumentParser(
        prog="python -m models.prepare", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("checkpoint", type=Path, help="the network's weights: .pt, .pth, .ckpt, .bin or .safetensors")
    add("--images", type=Path, required=True, metavar="FOLDER", help="pictures, one subfolder for each class")
    add("--out", type=Path, required=True, metavar="FOLDER", help="the folder to write; it must not exist yet")
    add_input(parser)
    add(
        "--held-out",
        type=part,
        help=f"share of the labelled pictures that judges accuracy, or their number ({SHARE}, at most {MOST_HELD_OUT})",
    )
    add("--seed", type=whole, default=0, help="chooses the held-out pictures (%(default)s)")
    add("--variants", type=variants, help="precisions to evaluate, comma-separated (all that run on this machine)")
    add(
        "--device", type=device, help="cpu, cuda or cuda:N, for the variants that a GPU can run (a GPU if there is one)"
    )
    add("--threads", type=positive, help="CPU threads (all available cores)")
    return parser.parse_args(argv)


def part(text: str) -> float:
    """Parse `--held-out`: a share between 0 and 1, or a whole number from 1."""
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not (0 < value < 1 or (value >= 1 and value == int(value))):
        raise argparse.ArgumentTypeError(f"expected a share such as 0.8, or a number of pictures, got {text!r}")
    return value


def main(argv: Sequence[str] | None = None) -> None:
    given = list(sys.argv[1:] if argv is None else argv)
    args, began = parse(given), time.perf_counter()
    command = f"python -m models.prepare {shlex.join(given)}"
    with one_sentence(), prepared.new_folder(args.out) as folder:
        material = gathered(args)
        print(*told(material), sep="\n", flush=True)
        prepared.put(folder, prepared.contents(material))
        pool = with_other_pool(material, folder, args)
        report = evaluated(material, folder, args, command, is_doubtful=bool(pool))
    if report:
        print("", table.main_table(report), "", remark(material, report, args), *filter(None, [pool]), "", sep="\n")
    print(f"{args.out}: prepared in {time.perf_counter() - began:.0f} s. Next: make serve CHECKPOINT={args.out}")


if __name__ == "__main__":
    main()

"""Run the quantization study and write its page: `python -m models.study --data DIR`.

Every recipe of models/study/recipes.py is built, evaluated on the test images paired against fp32, and kept as a file
in OUT; the same command continues a study that was stopped. Rows that need training are left out until `--train`, or
`python -m models.study.qat NAME`, has trained them.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import numpy as np
from tqdm import tqdm

from common import machine
from models import checkpoint, cifar10, files, flags, needs

needs.torch_or_exit("python -m models.study")


from models.command import one_sentence
from models.engines.network import fold
from models.study import found as found_on_disk
from models.study import page, qat, ranges
from models.study.bounding import labels_mean_classes
from models.study.building import Source
from models.study.recipes import QUICK, RECIPES
from models.study.work import PARTS, QUICK_BATCH, QUICK_IMAGES, QUICK_STEPS, Study, Task

ALL_IMAGES = 10_000
"""Of CIFAR-10's test set."""
ENOUGH = 60.0
"""Expected seconds of finished tasks from which their real time corrects the estimate of the rest."""


def run(tasks: Sequence[Task]) -> None:
    """Run the tasks that are not done; say how long the rest will take, judged by the tasks so far."""
    waiting = [task for task in tasks if not task.is_done()]
    expected, spent = 0.0, 0.0
    for index, task in enumerate(waiting):
        rest = sum(one.seconds for one in waiting[index:]) * (spent / expected if expected >= ENOUGH else 1.0)
        tqdm.write(f"{index + 1} of {len(waiting)}: {task.name}; about {rest / 60:.0f} min left", file=sys.stderr)
        began = time.perf_counter()
        task.run()
        spent, expected = spent + time.perf_counter() - began, expected + task.seconds


def names(text: str, known: Sequence[str], what: str) -> tuple[str, ...]:
    """Parse comma-separated names of `known`."""
    found = tuple(filter(None, (name.strip() for name in text.split(","))))
    if set(found) - set(known):
        raise argparse.ArgumentTypeError(f"expected {what} of {', '.join(known)}, got {text!r}")
    return found


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    """Return the flags."""
    parser = argparse.ArgumentParser(
        prog="python -m models.study", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--data", type=Path, default=files.data_root(), help="holds cifar-10-batches-bin/ (%(default)s)")
    add("--checkpoint", type=Path, default=files.default_path(), help="(%(default)s)")
    add("--out", type=Path, default=Path("runs/study"), help="folder for the results (%(default)s)")
    add("--page", type=Path, default=Path("docs/quantization.md"), help="the page to write (%(default)s)")
    recipes = partial(names, known=tuple(RECIPES), what="recipes")
    parts = partial(names, known=PARTS, what="parts")
    add("--recipes", type=recipes, default=",".join(RECIPES), help="comma-separated rows to build (all)")
    add(
        "--parts",
        type=parts,
        default=",".join(PARTS),
        help="comma-separated measurements besides the rows (%(default)s)",
    )
    add("--images", type=flags.positive, default=ALL_IMAGES, help="test images, from the first (%(default)s)")
    add("--train", action="store_true", help="train the rows that need it; each takes about an hour on two cores")
    add("--training-steps", type=flags.positive, help="of each trained row (the row's)")
    add("--adaround-steps", type=flags.positive, help="for each layer (the row's)")
    add("--threads", type=flags.positive, default=machine.available_cores(), help="of the CPU (%(default)s)")
    add("--quick", action="store_true", help=f"go the whole way with few rows, {QUICK_IMAGES} images and few steps")
    args = parser.parse_args(argv)
    if args.quick:
        args.recipes, args.images, args.train = QUICK, QUICK_IMAGES, True
        args.training_steps = args.adaround_steps = QUICK_STEPS
    return args


def command(args: argparse.Namespace) -> str:
    """Return the command of the page: without the places of files, which differ between machines."""
    given = (args.quick and " --quick", args.images != ALL_IMAGES and not args.quick and f" --images {args.images}")
    return "python -m models.study" + "".join(part for part in given if part)


def prepared(args: argparse.Namespace) -> Study:
    """Return the study of the flags."""
    state, card = checkpoint.load(args.checkpoint)
    network = fold(state, card)
    labels_mean_classes(network, card)
    images, labels = cifar10.read(args.data, "test")
    count = QUICK_IMAGES if args.quick else ranges.IMAGES
    source = Source(
        network=network,
        checkpoint_sha256=card.sha256,
        calibration=ranges.images_for(args.data, count),
        images=np.ascontiguousarray(images[: args.images]),
        labels=labels[: args.images],
        data=args.data,
        trained=args.out / "trained",
        threads=args.threads,
        training_steps=args.training_steps,
        adaround_steps=args.adaround_steps,
        training_batch=QUICK_BATCH if args.quick else qat.BATCH,
    )
    study = Study(args, source, card.bytes, checkpoint.half_precision_bytes(state))
    source.made = study.made
    return study


def main(argv: Sequence[str] | None = None) -> None:
    args = parse(argv)
    with one_sentence():
        study = prepared(args)
        run(study.tasks())
        found = found_on_disk.read(args.out, command(args), study.outcome, study.identity_of_part)
        page.write(found, args.page)
    print(f"{args.page}: {len(found.outcomes)} of {len(RECIPES)} recipes")


if __name__ == "__main__":
    main()

"""Evaluate variants on labelled images: `python -m models.evaluate --variants fp32,int8 --out DIR`.

The images are CIFAR-10's test set for a network with its classes, the held-out images of a folder that models.prepare
wrote (--checkpoint FOLDER), or a folder with one subfolder for each class (--images FOLDER). Prints one table and
writes it to OUT with every single result: evaluation.md, evaluation.json, and a contact sheet of the images on which a
variant and the reference differ. OUT also keeps the logits, so that the same command continues an evaluation that was
stopped.
"""

import argparse
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from common import machine
from models import checkpoint, files
from models.command import one_sentence
from models.evaluation import corruptions, record, table
from models.evaluation.images import chosen
from models.evaluation.report import record_entry
from models.evaluation.run import Plan, evaluate
from models.flags import add_preparation, device, positive, preparation_of, variants
from models.variants import VARIANTS, native_variants


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
    add("--checkpoint", type=Path, help="a file, or a folder of models.prepare, instead of the bundled weights")
    add(
        "--device",
        type=device,
        help="cpu, cuda or cuda:N, for the variants that a GPU can run (a GPU if there is one)",
    )
    add("--threads", type=positive, help="CPU threads (all available cores)")
    add(
        "--images",
        type=labelled_images,
        metavar="FOLDER|FILE.npz",
        help="labelled images: a folder with one subfolder for each class, or an .npz with images and labels (the "
        "checkpoint's held-out images, else CIFAR-10's test set)",
    )
    add("--count", type=positive, default=10_000, help="images, from the first (%(default)s)")
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
    if max(args.batch_sizes) > min(args.batch_images, args.count):
        parser.error("--batch-sizes: expected at most --batch-images and --count, so that each size has one batch")
    return args


def labelled_images(text: str) -> Path:
    """Parse `--images`."""
    if text.isdecimal() and not Path(text).exists():
        raise argparse.ArgumentTypeError(
            f"expected a folder or an .npz file, got {text}; a number of images is --count"
        )
    return Path(text)


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
    with one_sentence():
        path = files.resolve(args.checkpoint or files.default_path())
        plan = Plan(
            checkpoint=path,
            variants=args.variants,
            logits=args.out / "logits",
            command=f"python -m models.evaluate {shlex.join(given)}".strip(),
            preparation=preparation_of(args),
            device=args.device,
            threads=args.threads,
            batch_sizes=args.batch_sizes,
            batch_images=args.batch_images,
            corruptions=args.corruptions,
            corrupted_images=args.corrupted_images,
        )

        card = checkpoint.inspect(path, plan.preparation)
        report, sheets = evaluate(plan, chosen(args.images, path, args.data, card).first(args.count))
        contents = {args.out / name: content for name, content in sheets.items()}
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

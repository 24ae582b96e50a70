"""Calibrate INT8 activations on training images: `python -m models.quantize --data DIR --checkpoint FILE`.

Writes `NAME.int8.json`, which the `int8` variant reads, beside the checkpoint or into --out. Takes seconds. Without
this file `int8` calibrates itself at load on the bundled images.
"""

import argparse
from pathlib import Path

import numpy as np

from models import calibration, checkpoint, cifar10, files, pictures, preprocess
from models.calibrate import METHODS, MOST_IMAGES, calibrate
from models.calibration import Calibration
from models.card import names_of
from models.command import one_sentence
from models.engines import quantized
from models.engines.network import fold
from models.files import ARTIFACT_SUFFIX
from models.flags import add_preparation, positive, preparation_of, whole
from models.oracle import packed_logits
from models.reference import SUFFIX
from models.sample import labelled_sample
from models.study import bounding


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m models.quantize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=files.data_root(), help="holds cifar-10-batches-bin/ (%(default)s)"
    )
    parser.add_argument("--checkpoint", type=Path, default=files.default_path(), help="(%(default)s)")
    parser.add_argument("--out", type=Path, help="folder for the calibration (the checkpoint's)")
    parser.add_argument("--images", type=positive, default=MOST_IMAGES, help="how many images at most (%(default)s)")
    parser.add_argument("--seed", type=whole, default=0, help="chooses the images (%(default)s)")
    parser.add_argument("--method", choices=METHODS, default="mse", help="how to choose a range (%(default)s)")
    parser.add_argument(
        "--artifact",
        type=Path,
        metavar=f"NAME{ARTIFACT_SUFFIX}",
        help="also write the INT8 weights, which load without the checkpoint, and NAME.sample.npz for their self-test",
    )
    parser.add_argument(
        "--max-drop",
        type=float,
        metavar="POINTS",
        help="keep as few layers of the artifact in FP32 as it takes, so that the 95 %% interval of the loss of top-1 "
        "on the test images lies within so many points; takes minutes",
    )
    parser.add_argument(
        "--test-images", type=positive, default=10_000, help="labelled images that --max-drop judges by (%(default)s)"
    )
    add_preparation(parser)
    args = parser.parse_args(argv)
    if args.max_drop is not None and not (args.artifact and args.max_drop > 0):
        parser.error("--max-drop: expected a number above 0 and --artifact, in which the layers are kept")
    if args.artifact and not args.artifact.name.endswith(ARTIFACT_SUFFIX):
        parser.error(f"--artifact: expected a name that ends in {ARTIFACT_SUFFIX}, got {args.artifact.name}")
    with one_sentence():
        written = run(args)
    print("\n".join(written))


def run(args: argparse.Namespace) -> list[str]:
    """Calibrate, compute every file that the flags ask for, then write them all; return a sentence about each."""
    path = files.resolve(args.checkpoint)
    state, card = checkpoint.load(path, preparation_of(args))
    network = fold(state, card)
    inputs = network.input
    if args.calibration_images:
        images = pictures.read(args.calibration_images, inputs.side, args.images, inputs.resize)
    else:
        images, _ = cifar10.read(args.data, "train")
        images = images[np.sort(np.random.default_rng(args.seed).permutation(len(images))[: args.images])]
    ranges = calibrate(network, preprocess.resized(images, inputs.side, inputs.resize), args.method)
    found = Calibration(card.sha256, args.method, len(images), args.seed, ranges, inputs)
    place = files.beside((args.out or path.parent) / path.name, calibration.SUFFIX)
    contents = {place: found.to_json()}
    source = args.calibration_images or "CIFAR-10's training set"
    said = [f"{place}: ranges of {len(ranges)} activations over {len(images)} images of {source}, method {args.method}"]
    if args.artifact:
        integers = quantized.quantize(network, ranges, quantized.FULL_LIMIT)
        if args.max_drop is not None:
            shown = bounding.labelled(path, card, network, args.data, args.test_images)
            integers, sentence = bounding.within(network, integers, shown, args.max_drop / 100)
            said.append(sentence)
        content = quantized.serialize(integers, card.sha256, found.sha256, names_of(card, network.architecture.classes))
        reference = files.beside(args.artifact, SUFFIX)
        own = labelled_sample(args.artifact, card.completed(network))  # the self-test of the artifact takes the same
        tested = own.images if own else cifar10.sample()[0]
        contents |= {args.artifact: content, reference: packed_logits(state, card, tested)}
        said += [
            f"{args.artifact}: {len(content):,} bytes, {len(content) / card.bytes:.1%} of the checkpoint's",
            f"{reference}: the FP32 logits that the artifact's self-test needs",
        ]
    files.write_all(contents)
    return said


if __name__ == "__main__":
    main()

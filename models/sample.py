"""Write the bundled sample and a checkpoint's logits on it: `python -m models.sample --data DIR --checkpoint FILE`.

The sample (`models/weights/sample.npz`) holds 30 official test images of each class: images, labels and their indices
in the test set. The logits (`NAME.sample.npz` beside the checkpoint) are the reference of the self-test: torchvision's
network in FP32, not folded, not fused (models.oracle).
"""

import argparse
import io
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import checkpoint, cifar10, files
from models.command import one_sentence
from models.flags import add_input, input_of
from models.oracle import packed_logits
from models.reference import SUFFIX

PER_CLASS = 30
SEED = 2024


def choose(labels: cifar10.Labels) -> NDArray[np.int64]:
    """Return the indices of PER_CLASS random images of each class (by SEED), the classes taking turns."""
    order = np.random.default_rng(SEED).permutation(len(labels))
    columns = [order[labels[order] == index][:PER_CLASS] for index in range(len(cifar10.CLASSES))]
    return np.stack(columns, axis=1).reshape(-1)


def packed_sample(data: Path) -> tuple[bytes, cifar10.Images]:
    """Return the file with the sample that is chosen from the official test images under `data`, and its images."""
    images, labels = cifar10.read(data, "test")
    chosen = choose(labels)
    content = io.BytesIO()
    np.savez_compressed(
        content, images=images[chosen], labels=labels[chosen], indices=chosen, classes=np.array(cifar10.CLASSES)
    )
    return content.getvalue(), images[chosen]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m models.sample", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="holds cifar-10-batches-bin/; without it only the logits are written")
    parser.add_argument("--checkpoint", type=Path, default=files.default_path(), help="(%(default)s)")
    add_input(parser)
    args = parser.parse_args(argv)
    place, contents = files.beside(args.checkpoint, SUFFIX), {}
    with one_sentence():
        if args.data:
            contents[cifar10.SAMPLE], images = packed_sample(args.data)
        else:
            images, _ = cifar10.sample()
        contents[place] = packed_logits(*checkpoint.load(args.checkpoint, input_of(args)), images)
        files.write_all(contents)
    if args.data:
        print(f"{cifar10.SAMPLE}: {len(contents[cifar10.SAMPLE]):,} bytes")
    print(f"{place}: FP32 logits of {len(images)} images")


if __name__ == "__main__":
    main()

"""Write the bundled sample and a checkpoint's logits on it: `python -m models.sample --data DIR --checkpoint FILE`.

The sample (`models/weights/sample.npz`) holds 30 official test images of each class: images, labels and their indices
in the test set. The logits (`NAME.sample.npz` beside the checkpoint) are the reference of the self-test: torchvision's
network in FP32 on the CPU, not folded, not fused.
"""

import argparse
import io
import sys
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import checkpoint, cifar10, files
from models.card import Preparation
from models.files import CheckpointError
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


def write_sample(data: Path, path: Path) -> None:
    """Choose the sample from the official test images under `data` and write it to `path`."""
    images, labels = cifar10.read(data, "test")
    chosen = choose(labels)
    content = io.BytesIO()
    np.savez_compressed(content, images=images[chosen], labels=labels[chosen], indices=chosen)
    files.write(path, content.getvalue())


def write_logits(source: Path, preparation: Preparation, images: cifar10.Images) -> Path:
    """Write the oracle's logits on `images` beside the checkpoint `source`; return the file."""
    path = files.beside(source, SUFFIX)
    files.write(path, packed_logits(*checkpoint.load(source, preparation), images))
    return path


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m models.sample", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, help="holds cifar-10-batches-bin/; without it only the logits are written")
    parser.add_argument("--checkpoint", type=Path, default=files.default_path(), help="(%(default)s)")
    add_input(parser)
    args = parser.parse_args(argv)
    try:
        if args.data:
            write_sample(args.data, cifar10.SAMPLE)
            print(f"{cifar10.SAMPLE}: {cifar10.SAMPLE.stat().st_size:,} bytes")
        images, labels = cifar10.sample()
        print(f"{write_logits(args.checkpoint, input_of(args), images)}: FP32 logits of {len(labels)} images")
    except (cifar10.DatasetError, CheckpointError) as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

"""CIFAR-10: the official binary data set (download, verify, read) and the bundled sample."""

import argparse
import hashlib
import io
import sys
import tarfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import files, needs

CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
MEAN = (0.49140, 0.48216, 0.44653)
STD = (0.24703, 0.24349, 0.26159)
"""Per channel over the 50,000 training images, on the scale 0 to 1."""

URL = "https://www.cs.toronto.edu/~kriz/cifar-10-binary.tar.gz"
MD5 = "c32a1d4ab5d03f1284b67883e8d87530"
FOLDER = "cifar-10-batches-bin"
BYTES_PER_IMAGE = 1 + 3 * 32 * 32
"""Bytes of one image in a file: its label, then red, green and blue."""
SHA1 = {
    "data_batch_1.bin": "aadd24acce27caa71bf4b10992e9e7b2d74c2540",
    "data_batch_2.bin": "c0ba65cce70568cd57b4e03e9ac8d2a5367c1795",
    "data_batch_3.bin": "1dd00a74ab1d17a6e7d73e185b69dbf31242f295",
    "data_batch_4.bin": "aab85764eb3584312d3c7f65fd2fd016e36a258e",
    "data_batch_5.bin": "26e2849e66a845b7f1e4614ae70f4889ae604628",
    "test_batch.bin": "67eb016db431130d61cd03c7ad570b013799c88c",
}
SAMPLE = Path(__file__).parent / "weights" / "sample.npz"
"""300 test images, 30 of each class, chosen by `python -m models.sample`."""
SPLITS = {"train": tuple(SHA1)[:5], "test": tuple(SHA1)[5:]}

Images = NDArray[np.uint8]
"""`[N, 3, 32, 32] uint8`, RGB, channel first."""
Labels = NDArray[np.int64]
"""`[N] int64`, indices into CLASSES."""


class DatasetError(Exception):
    """The data set is missing, damaged, or cannot be downloaded."""


def read(root: Path, split: str) -> tuple[Images, Labels]:
    """Return the images and labels of `split` (`train` or `test`) in official order, each file verified by SHA-1.

    Raises:
        DatasetError: a file is missing or is not the official one.
    """
    rows = np.concatenate([_rows(root / FOLDER / name) for name in SPLITS[split]])
    return rows[:, 1:].reshape(-1, 3, 32, 32), rows[:, 0].astype(np.int64)


def _rows(path: Path) -> NDArray[np.uint8]:
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise DatasetError(
            f"{path} is missing: run `python -m models.cifar10 --root {path.parent.parent}` to download CIFAR-10, "
            "or set CIFAR10_DIR to the folder that holds cifar-10-batches-bin/"
        ) from None
    except OSError as error:
        raise DatasetError(f"{path} cannot be read: {error}") from error
    if (found := hashlib.sha1(data, usedforsecurity=False).hexdigest()) != SHA1[path.name]:
        raise DatasetError(
            f"{path} is damaged: SHA-1 {found}, expected {SHA1[path.name]}; delete it and download again"
        )
    return np.frombuffer(data, np.uint8).reshape(-1, BYTES_PER_IMAGE)


def sample() -> tuple[Images, Labels]:
    """Return the bundled test images and their labels, the ten classes taking turns, so that a prefix is balanced, too.

    Raises:
        DatasetError: the file is missing or damaged.
    """
    try:
        with np.load(io.BytesIO(SAMPLE.read_bytes())) as content:
            return content["images"], content["labels"].astype(np.int64)
    except files.BROKEN_NPZ as error:
        raise DatasetError(f"{SAMPLE} cannot be read ({error}); restore it with `git checkout -- {SAMPLE}`") from error


def ensure(root: Path) -> None:
    """Download the official files to `root`, with a progress bar, if they are not there.

    Raises:
        DatasetError: torchvision, which downloads, is not installed; or the download fails; or the archive is damaged
            or not the official one.
    """
    if all((root / FOLDER / name).exists() for name in SHA1):
        return
    if sentence := needs.torch_or_sentence("the download of CIFAR-10"):
        raise DatasetError(sentence)
    from torchvision.datasets.utils import download_url  # noqa: PLC0415 - torch is not needed to read the files

    archive = root / Path(URL).name
    try:
        download_url(URL, str(root), md5=MD5)
    except (OSError, RuntimeError) as error:
        raise DatasetError(
            f"could not download {URL} ({error}). Offline: copy the archive to {archive}, "
            f"or the six unpacked .bin files to {root / FOLDER}, from a machine that has a network"
        ) from error
    try:
        with tarfile.open(archive) as tar:
            tar.extractall(root, filter="data")
    except OSError as error:
        raise DatasetError(f"{archive} could not be unpacked: {error}") from error
    archive.unlink()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m models.cifar10", description="Download and verify CIFAR-10.")
    parser.add_argument(
        "--root", type=Path, default=files.data_root(), help="folder for cifar-10-batches-bin/ (%(default)s)"
    )
    root: Path = parser.parse_args(argv).root
    try:
        ensure(root)
        for split in SPLITS:
            images, _ = read(root, split)
            print(f"{split}: {len(images):,} images, SHA-1 verified, in {root / FOLDER}")
    except DatasetError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()

"""The data set and the bundled sample: reading, verifying, and their errors."""

from pathlib import Path

import numpy as np
import pytest

from models import cifar10, files, sample
from models.cifar10 import DatasetError


def test_the_official_layout_is_read(tiny_dataset: Path) -> None:
    """Images and labels are read in official order; a record has its label first, then red, green, blue."""
    images, labels = cifar10.read(tiny_dataset, "test")
    raw = np.frombuffer((tiny_dataset / cifar10.FOLDER / "test_batch.bin").read_bytes(), np.uint8).reshape(20, 3073)
    assert np.array_equal(images[5, 1].ravel(), raw[5, 1025:2049])
    assert np.array_equal(labels, np.arange(20) % 10)
    assert cifar10.read(tiny_dataset, "train")[0].shape == (40, 3, 32, 32)


def test_a_damaged_file_is_refused(tiny_dataset: Path) -> None:
    """A file with one changed bit is an error that names it."""
    place = tiny_dataset / cifar10.FOLDER / "data_batch_3.bin"
    data = bytearray(place.read_bytes())
    data[100] ^= 1
    place.write_bytes(data)
    with pytest.raises(DatasetError, match=r"data_batch_3.bin is damaged: SHA-1"):
        cifar10.read(tiny_dataset, "train")


def test_a_missing_file_says_where_to_get_it(tmp_path: Path) -> None:
    """A missing file is an error that names the command to download it and the variable."""
    with pytest.raises(DatasetError, match=r"python -m models.cifar10 --root .* CIFAR10_DIR"):
        cifar10.read(tmp_path, "test")


def test_the_sample_is_balanced() -> None:
    """The sample has 300 images, and each ten in a row have one of each class."""
    images, labels = cifar10.sample()
    assert (images.shape, images.dtype) == ((300, 3, 32, 32), np.uint8)
    assert np.array_equal(labels, np.tile(np.arange(10), 30))
    assert cifar10.SAMPLE.stat().st_size < 1_000_000


@pytest.mark.dataset
def test_the_sample_is_of_the_test_set() -> None:
    """The sample holds the official test images at its indices, which `sample.choose` gives again."""
    images, labels = cifar10.read(files.data_root(), "test")
    with np.load(cifar10.SAMPLE) as content:
        indices = content["indices"]
    assert np.array_equal(indices, sample.choose(labels))
    assert np.array_equal(images[indices], cifar10.sample()[0])


def test_a_damaged_sample_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A missing or damaged sample is an error that names the file."""
    place = tmp_path / "sample.npz"
    monkeypatch.setattr(cifar10, "SAMPLE", place)
    for content in (None, b"", b"PK\x03\x04 nothing"):
        if content is not None:
            place.write_bytes(content)
        with pytest.raises(DatasetError, match=r"sample.npz cannot be read"):
            cifar10.sample()

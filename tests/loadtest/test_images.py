"""The images that the load test sends."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from loadtest.client.folders import read
from loadtest.client.images import ImagesError, LabelledImages, bodies


def some(count: int) -> LabelledImages:
    pixels = np.random.default_rng(0).integers(0, 256, (count, 3, 32, 32), dtype=np.uint8)
    return LabelledImages(pixels, np.arange(count) % 10)


def test_a_png_body_holds_the_image_it_says() -> None:
    """The body decodes to the pixels of its member."""
    images = some(5)
    sent = bodies(images, "png", 1, seed=3)
    for body, members in zip(sent.bodies, sent.members, strict=True):
        decoded = np.asarray(Image.open(io.BytesIO(body))).transpose(2, 0, 1)
        np.testing.assert_array_equal(decoded, images.pixels[members[0]])


def test_a_raw_body_is_channel_first_bytes_of_all_its_images() -> None:
    """`[N, 3, 32, 32]` bytes in the order of the members."""
    images = some(6)
    sent = bodies(images, "raw", 4, seed=3)
    decoded = np.frombuffer(sent.bodies[1], np.uint8).reshape(-1, 3, 32, 32)
    np.testing.assert_array_equal(decoded, images.pixels[sent.members[1]])


def test_the_same_seed_gives_the_same_order_and_another_seed_another() -> None:
    """The order depends on the seed alone, so arms can be paired image by image."""
    order = [[int(m[0]) for m in bodies(some(50), "raw", 1, seed).members] for seed in (1, 1, 2)]
    assert order[0] == order[1] != order[2]


@pytest.mark.parametrize("per_request", [1, 3, 4, 10, 15])
def test_every_image_is_sent_equally_often(per_request: int) -> None:
    """All bodies together hold each image the same number of times."""
    members = np.concatenate(bodies(some(10), "raw", per_request, seed=0).members)
    assert len(set(np.bincount(members, minlength=10))) == 1


def test_a_missing_file_says_what_to_do(tmp_path: Path) -> None:
    """The error names the flag."""
    with pytest.raises(ImagesError, match=r"--images FILE\.npz"):
        read(tmp_path / "nowhere.npz", "png")


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        ({"images": np.zeros((2, 3, 32, 32), np.uint8)}, "labels"),
        ({"images": np.zeros((2, 32, 32, 3), np.uint8), "labels": np.zeros(2, np.int64)}, "images must be"),
        ({"images": np.zeros((2, 3, 32, 32), np.float32), "labels": np.zeros(2, np.int64)}, "images must be"),
        ({"images": np.zeros((2, 3, 32, 32), np.uint8), "labels": np.zeros(3, np.int64)}, "labels must be"),
    ],
)
def test_a_file_of_the_wrong_shape_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], message: str) -> None:
    """The error says what was expected."""
    np.savez(tmp_path / "file.npz", **arrays)
    with pytest.raises(ImagesError, match=message):
        read(tmp_path / "file.npz", "png")


def test_a_file_that_is_no_npz_is_refused(tmp_path: Path) -> None:
    """A text file is an error that names the expected format."""
    (tmp_path / "file.npz").write_text("no")
    with pytest.raises(ImagesError, match=r"not an \.npz"):
        read(tmp_path / "file.npz", "png")

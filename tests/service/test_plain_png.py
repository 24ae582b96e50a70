"""Plain PNGs have a way of their own, which gives what Pillow gives."""

import io

import numpy as np
import pytest
from PIL import Image

from models.preprocess import to_pixels
from service import images, plain_png
from service.errors import ServiceError
from tests.service.pictures import encode

NOISE = np.random.default_rng(0).integers(0, 256, (3, 32, 32), np.uint8)
SMOOTH = np.broadcast_to(np.arange(32, dtype=np.uint8) * 7, (3, 32, 32)) + np.arange(32, dtype=np.uint8)[:, None]
SMALL = encode(NOISE[:, :4, :4])


@pytest.mark.parametrize("pixels", [NOISE, SMOOTH], ids=["noise", "smooth"])
@pytest.mark.parametrize("level", [0, 1, 9])
def test_a_plain_png_has_the_pixels_that_pillow_finds(pixels: np.ndarray, level: int) -> None:
    """This holds for rows of every filter, compressed or not."""
    body = encode(pixels, compress_level=level)
    assert plain_png.is_plain(body, 32)
    decoded = plain_png.pixels_of(body, 32)
    assert decoded is not None
    assert np.array_equal(decoded, to_pixels(Image.open(io.BytesIO(body))))


@pytest.mark.parametrize(
    "body",
    [
        encode(NOISE[:, :16, :16]), encode(NOISE, mode="L"), encode(NOISE, mode="P"), encode(NOISE, mode="RGBA"),
        encode(NOISE, "JPEG"), encode(NOISE)[:-1], b"",
    ],
    ids=["size", "grey", "palette", "alpha", "jpeg", "cut", "empty"],
)  # fmt: skip
def test_no_other_file_is_plain(body: bytes) -> None:
    """Another size, another kind of pixels, another format and a file without its end are left to Pillow."""
    assert not plain_png.is_plain(body, 32)


def outcome(body: bytes) -> object:
    """Return the pixels of a body, or the error that it is refused with."""
    try:
        return images.decode(body, images.Limits(max_images=1, max_pixels=100, side=4)).tolist()
    except ServiceError as error:
        return error.reason.word, error.detail


def test_a_damaged_file_ends_as_it_does_with_pillow_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each byte of a file is changed in turn, and each beginning of it is sent: its own way changes nothing."""
    places = range(len(SMALL))
    changed = [SMALL[:at] + bytes([SMALL[at] ^ mask]) + SMALL[at + 1 :] for at in places for mask in (1, 255)]
    bodies = [SMALL, *changed, *(SMALL[:end] for end in places), SMALL + b"more"]
    ours = [outcome(body) for body in bodies]
    monkeypatch.setattr(plain_png, "is_plain", lambda *_: False)
    assert ours == [outcome(body) for body in bodies]

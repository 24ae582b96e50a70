"""The orientation of EXIF data is what Pillow reads of the whole, at a bounded cost."""

import io
import struct
import time
from typing import Any

import numpy as np
import pytest
from PIL import Image

from models.preprocess import to_pixels
from service.orientation import LENGTH, PREFIX, TAG, orientation_alone
from service.structure import reduced

MOST = 64
CORNERS = np.zeros((40, 40, 3), np.uint8)
CORNERS[:20, :20], CORNERS[:20, 20:], CORNERS[20:, :20] = (200, 0, 0), (0, 200, 0), (0, 0, 200)


def exif(*entries: tuple[int, int, int, int], order: str = "<", tail: int = 0) -> bytes:
    """Return EXIF data of these entries: tag, type, number of values, value or the position of the values."""
    head = (b"II*\x00" if order == "<" else b"MM\x00*") + struct.pack(order + "IH", 8, len(entries))
    body = b"".join(
        struct.pack(order + "HHI", *entry[:3]) + struct.pack(order + ("Hxx" if entry[1] == 3 else "I"), entry[3])
        for entry in entries
    )
    return head + body + bytes(4) + b"\x01" * tail


def encoded(kind: str, content: bytes) -> bytes:
    buffer = io.BytesIO()
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {}
    Image.fromarray(CORNERS).save(buffer, kind, exif=PREFIX + content, **options)
    return buffer.getvalue()


def pixels(body: bytes) -> np.ndarray:
    return to_pixels(Image.open(io.BytesIO(body)))


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("value", range(10))
def test_every_orientation_stays(kind: str, order: str, value: int) -> None:
    """An image is turned as it is with all of its EXIF data, in both byte orders, also by values without meaning."""
    body = encoded(kind, exif((0x010F, 2, 300, 38), (TAG, 3, 1, value), order=order, tail=300))
    assert np.array_equal(pixels(reduced(body, MOST)), pixels(body))


@pytest.mark.parametrize(
    "content",
    [
        exif((0x010F, 2, 4, 0), tail=30),
        exif((TAG, 3, 2, 6), tail=30),
        exif((TAG, 5, 1, 38), tail=30),
        b"II+\x00" + exif((TAG, 3, 1, 6), tail=30)[4:],
        exif((TAG, 3, 1, 6))[:4] + b"\xff" * 40,
        b"\x00" * 60,
    ],
    ids=["none", "two values", "rational", "BigTIFF", "position beyond", "zeros"],
)
def test_an_orientation_that_cannot_be_read_turns_nothing(content: bytes) -> None:
    """EXIF data without one whole number as orientation become data without an entry."""
    alone = Image.Exif()
    alone.load(orientation_alone(content))
    assert dict(alone) == {}


@pytest.mark.parametrize("length", range(0, 60, 3))
def test_cut_data_are_read_as_far_as_they_go(length: int) -> None:
    """The data may end anywhere; the result is never longer than they are."""
    content = exif((TAG, 3, 1, 6), (0x011A, 5, 1, 38), tail=30)[:length]
    assert len(orientation_alone(content)) == min(length, LENGTH)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_large_data_cost_little(kind: str) -> None:
    """64 KB of entries that point at each other's bytes take less than 5 ms of processor time, with all decoding."""
    ours = [(TAG, 5, 7000, 100), (0x011A, 5, 7000, 100), (0x0128, 3, 1, 2)]
    body = encoded(kind, exif(*ours, *((0x9000 + index, 1, 30_000, 8) for index in range(2500)), tail=30_000))
    pixels(encoded(kind, b""))  # Pillow loads its plugins

    def cost() -> float:
        began = time.thread_time()
        pixels(reduced(body, MOST))
        return time.thread_time() - began

    assert min(cost() for _ in range(5)) < 0.005


def test_a_wrong_checksum_is_left_to_the_decoder() -> None:
    """EXIF data of a PNG that do not fit their checksum stay as they are, so that the image counts as damaged."""
    body = bytearray(encoded("PNG", exif((TAG, 3, 1, 6), tail=60)))
    body[body.index(b"eXIf") + 30] ^= 1
    assert reduced(bytes(body), MOST) == body

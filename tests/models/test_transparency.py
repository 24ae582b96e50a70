"""Transparent values and EXIF data as PNG and JPEG files hold them, written here byte by byte."""

import io
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from models.preprocess import to_pixels

SIDE = 8
WHITE = 255


def png(depth: int, colour: int, row: bytes, transparent: bytes) -> Image.Image:
    """An image of SIDE equal rows of packed samples, with a tRNS chunk."""
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", SIDE, SIDE, depth, colour, 0, 0, 0)),
        (b"tRNS", transparent),
        (b"IDAT", zlib.compress((b"\x00" + row) * SIDE)),
        (b"IEND", b""),
    )
    body = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )
    return Image.open(io.BytesIO(body))


@pytest.mark.parametrize(
    ("depth", "colour", "row", "transparent", "other"),
    [
        (1, 0, b"\x0f", b"\x00\x01", 0),
        (2, 0, b"\x00\x55", b"\x00\x01", 0),
        (2, 0, b"\x55\xaa", b"\x00\x02", 85),
        (4, 0, b"\x33\x33\x77\x77", b"\x00\x07", 51),
        (8, 0, b"\x21" * 4 + b"\x42" * 4, b"\x00\x42", 0x21),
        (16, 0, b"\x21\x01" * 4 + b"\x21\x02" * 4, b"\x21\x02", 0x21),
        (8, 2, b"\x21" * 12 + b"\x42" * 12, b"\x00\x42" * 3, 0x21),
        (16, 2, b"\x21\x00" * 12 + b"\x42\x07" * 12, b"\x42\x07" * 3, 0x21),
    ],
)
def test_the_transparent_value_is_white(depth: int, colour: int, row: bytes, transparent: bytes, other: int) -> None:
    """The left half keeps its value, the right half has the transparent one and is laid over white."""
    pixels = to_pixels(png(depth, colour, row, transparent), SIDE)
    assert np.unique(pixels[:, :, :4]).tolist() == [other]
    assert np.unique(pixels[:, :, 4:]).tolist() == [WHITE]


def exif(*entries: tuple[int, int, int, bytes]) -> bytes:
    """EXIF data of one directory: each entry is tag, type, count and its four bytes."""
    fields = b"".join(struct.pack("<HHI", tag, kind, count) + value for tag, kind, count, value in entries)
    return b"Exif\x00\x00II*\x00\x08\x00\x00\x00" + struct.pack("<H", len(entries)) + fields + bytes(4)


ORIENTATION = (0x0112, 3, 1, b"\x06\x00\x00\x00")
ODD = {
    "a signed rational": (0x011A, 10, 1, struct.pack("<I", 500)),
    "an unknown type": (0x011A, 99, 1, b"\x01\x00\x00\x00"),
    "a text out of reach": (0x010F, 2, 70_000, struct.pack("<I", 2**31)),
}


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("odd", ODD)
def test_an_odd_tag_elsewhere_does_not_damage_a_photo(odd: str) -> None:
    """The orientation is found whatever stands beside it, and nothing is written back."""
    data = exif(ORIENTATION, ODD[odd])
    data += bytes(500 - (len(data) - 6)) + struct.pack("<ii", -1, 0)
    picture = Image.fromarray(np.arange(SIDE * 2 * SIDE * 3, dtype=np.uint8).reshape(SIDE, 2 * SIDE, 3))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=data, quality=100, subsampling=0)
    opened = Image.open(buffer)
    upright = Image.open(io.BytesIO(buffer.getvalue())).transpose(Image.Transpose.ROTATE_270)
    assert np.array_equal(to_pixels(opened, SIDE), to_pixels(Image.fromarray(np.asarray(upright)), SIDE))


def test_damaged_exif_data_leave_the_image_as_it_lies() -> None:
    """EXIF data without a directory name no orientation."""
    picture = Image.fromarray(np.arange(SIDE * SIDE * 3, dtype=np.uint8).reshape(SIDE, SIDE, 3))
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", exif=b"Exif\x00\x00II*\x00\xff\xff")
    assert np.array_equal(
        to_pixels(Image.open(buffer), SIDE), np.asarray(Image.open(io.BytesIO(buffer.getvalue()))).transpose(2, 0, 1)
    )

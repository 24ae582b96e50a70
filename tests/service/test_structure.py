"""What is kept of an image file, and how many pieces it may have."""

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from service.structure import TooManyPieces, reduced, webp_size

MOST = 1000
PIXELS = np.random.default_rng(0).integers(0, 256, (40, 50, 3), np.uint8)
ROTATED = Image.Exif()
ROTATED[0x0112] = 6


def encoded(kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(PIXELS).save(buffer, kind, **options)
    return buffer.getvalue()


def opened(body: bytes) -> Image.Image:
    return Image.open(io.BytesIO(body))


def chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


@pytest.mark.parametrize(
    ("kind", "options"),
    [("PNG", {}), ("JPEG", {}), ("JPEG", {"restart_marker_blocks": 1}), ("JPEG", {"progressive": True}), ("WEBP", {})],
)
def test_a_plain_file_stays_as_it_is(kind: str, options: dict[str, Any]) -> None:
    """A file of needed pieces alone is not even copied."""
    body = encoded(kind, **options)
    assert reduced(body, MOST) is body


@pytest.mark.parametrize("options", [{}, {"lossless": True}, {"exif": ROTATED.tobytes()}])
def test_a_webp_tells_its_size(options: dict[str, Any]) -> None:
    """Width and height are read from a lossy, a lossless and an extended WebP; from nothing else."""
    assert webp_size(encoded("WEBP", **options)) == (50, 40)
    assert webp_size(encoded("PNG")) is None
    assert webp_size(encoded("WEBP", **options)[:29]) is None


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_metadata_goes_and_the_orientation_stays(kind: str) -> None:
    """Profiles and comments are dropped; pixels and the EXIF orientation are the same."""
    comment = {"comment": b"hello"} if kind == "JPEG" else {}
    body = encoded(kind, exif=ROTATED.tobytes(), icc_profile=bytes(100_000), **comment)
    kept = reduced(body, MOST)
    assert len(kept) < len(body)
    assert (opened(kept).getexif()[0x0112], "icc_profile" in opened(kept).info) == (6, False)
    assert np.array_equal(opened(kept), opened(body))


def test_inflating_text_is_dropped_unread() -> None:
    """A text that inflates to 3 MB, which Pillow refuses, does not make the image damaged."""
    info = PngImagePlugin.PngInfo()
    info.add_itxt("XML:com.adobe.xmp", "y" * 3_000_000, zip=True)
    assert np.array_equal(opened(reduced(encoded("PNG", pnginfo=info), MOST)), PIXELS)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_what_follows_the_image_is_dropped(kind: str) -> None:
    """A video behind the picture, with any number of markers in it, is none of the picture."""
    body = encoded(kind)
    assert reduced(body + b"\xff\xda\x00\x02" * 10_000, MOST) == body


@pytest.mark.parametrize(
    ("body", "pieces"),
    [
        (encoded("PNG")[:33] + chunk(b"tEXt") * 400_000, "chunks of a PNG"),
        (encoded("PNG")[:33] + chunk(b"IDAT") * 400_000, "chunks of a PNG"),
        (b"\xff\xd8" + b"\xff\xe1\x00\x02" * 400_000, "segments of a JPEG"),
        (b"\xff\xd8" + b"\xff\xd0" * 400_000 + b"\xff\xe1\x00\x02" * 400_000, "segments of a JPEG"),
        (b"\xff\xd8" + b"\xff\xda\x00\x02" * 400_000, "scans of a JPEG"),
        (encoded("WEBP")[:12] + b"EXIF\x00\x00\x00\x00" * 400_000, "chunks of a WebP"),
    ],
)
def test_too_many_pieces_are_refused(body: bytes, pieces: str) -> None:
    """The error names what there is too much of."""
    with pytest.raises(TooManyPieces, match=pieces):
        reduced(body, MOST)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP"])
def test_a_broken_file_is_left_to_the_decoder(kind: str) -> None:
    """Every truncation comes back as bytes that the decoder can judge, at most as many as there were."""
    body = encoded(kind, exif=ROTATED.tobytes())
    for length in range(0, len(body), 7):
        assert len(reduced(body[:length], MOST)) <= length

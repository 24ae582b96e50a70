"""Images that mean harm, or are merely broken: the decoder refuses them, in time and within its memory."""

import dataclasses
import io
import resource
import struct
import zlib

import numpy as np
import pytest
from PIL import Image

from service import images
from service.errors import ServiceError
from tests.service.pictures import encode, solid

LIMITS = images.Limits(max_images=8, max_pixels=1_000_000)
KINDS = ("PNG", "JPEG", "WEBP")


def picture(side: int = 64) -> np.ndarray:
    """Return random pixels, `[3, side, side] uint8`."""
    return np.random.default_rng(0).integers(0, 256, (3, side, side), np.uint8)


def word_of(body: bytes, limits: images.Limits = LIMITS) -> str:
    with pytest.raises(ServiceError) as raised:
        images.decode(body, limits)
    return raised.value.reason.word


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "PCX", "JPEG2000", "PDF", "DDS", "ICNS"])
def test_no_other_decoder_can_be_reached(kind: str) -> None:
    """A format that Pillow can read, but that is none of PNG, JPEG and WebP, is `not_an_image`."""
    assert word_of(encode(picture(), kind)) == "not_an_image"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_truncated_image_is_refused(kind: str, share: float) -> None:
    """A half picture is never classified."""
    whole = encode(picture(), kind)
    assert word_of(whole[: int(len(whole) * share)]) == "not_an_image"


def test_a_corrupt_png_is_refused() -> None:
    """A flipped bit in the pixels fails the checksum."""
    body = bytearray(encode(picture()))
    body[len(body) // 2] ^= 1
    assert word_of(bytes(body)) == "not_an_image"


@pytest.mark.parametrize(("kind", "start"), [("JPEG", b"\xff\xc4"), ("JPEG", b"\xff\xdb"), ("WEBP", b"VP8 ")])
def test_a_corrupt_header_is_refused(kind: str, start: bytes) -> None:
    """The tables of a JPEG or the frame of a WebP are damaged."""
    body = bytearray(encode(picture(), kind))
    at = body.index(start) + 4
    body[at : at + 16] = b"\xff" * 16
    assert word_of(bytes(body)) == "not_an_image"


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_corrupt_pixels_without_a_checksum_are_accepted(kind: str) -> None:
    """No decoder can tell, as docs/api.md says; the damaged pixels are decoded."""
    body = bytearray(encode(picture(32), kind))
    body[len(body) * 3 // 4] ^= 0x55  # behind all tables
    assert (images.decode(bytes(body), LIMITS) != images.decode(encode(picture(32), kind), LIMITS)).any()


def test_a_short_picture_with_a_correct_end_is_accepted() -> None:
    """A PNG of too few rows whose checksums are right, and a cut JPEG with an end marker, as docs/api.md says."""
    half = images.decode(png_of(32, 32, zlib.compress(b"".join(b"\0" + bytes([9] * 96) for _ in range(16)))), LIMITS)
    assert (half[:, :16] == 9).all()
    assert (half[:, 16:] == 0).all()
    cut = encode(picture(32), "JPEG")
    assert images.decode(cut[: len(cut) * 3 // 4] + b"\xff\xd9", LIMITS).shape == (3, 32, 32)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_the_first_frame_of_an_animation_is_decoded(kind: str) -> None:
    """The rest of an APNG or animated WebP is ignored."""
    first, second = (Image.fromarray(solid(value).transpose(1, 2, 0)) for value in (40, 200))
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))
    assert np.abs(images.decode(buffer.getvalue(), LIMITS).astype(int) - 40).max() <= 1


def test_the_first_picture_of_a_jpeg_is_decoded() -> None:
    """Cameras write JPEGs of several pictures (MPO)."""
    first, second = (Image.fromarray(solid(value).transpose(1, 2, 0)) for value in (40, 200))
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    assert np.abs(images.decode(buffer.getvalue(), LIMITS).astype(int) - 40).max() <= 1


def chunk(kind: bytes, data: bytes) -> bytes:
    """Return a chunk of a PNG with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, compressed: bytes, bits: int = 8) -> bytes:
    """Return an RGB PNG that claims to be of this size and holds this data."""
    head = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    """Return a small JPEG that claims to be of this size."""
    body = encode(picture(), "JPEG")
    at = body.index(b"\xff\xc0") + 5
    return body[:at] + struct.pack(">HH", height, width) + body[at + 4 :]


def webp_of(width: int, height: int) -> bytes:
    """Return a WebP with a small frame on a canvas that claims to be of this size."""
    frame = encode(picture(16), "WEBP")[12:]
    places = struct.pack("<IIIII", 0, 0, 15, 15, 100)
    place = b"".join(places[at : at + 3] for at in range(0, 20, 4)) + b"\0"
    canvas = bytes([2, 0, 0, 0]) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    parts = ((b"VP8X", canvas), (b"ANIM", bytes(6)), (b"ANMF", place + frame))
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(data)) + data for kind, data in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_16_bits_of_colour_are_scaled_too() -> None:
    """An RGB PNG of v * 257 is the 8-bit picture of v."""
    pixels = picture(32)
    wide = pixels.transpose(1, 2, 0).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    assert (images.decode(png_of(32, 32, zlib.compress(rows), bits=16), LIMITS) == pixels).all()


@pytest.mark.parametrize(
    "body",
    [
        png_of(1001, 1000, zlib.compress(b"")),
        png_of(20_000, 20_000, zlib.compress(b"")),
        png_of(2**31 - 1, 2**31 - 1, zlib.compress(b"")),
        png_of(1_000_001, 1, zlib.compress(b"")),
        jpeg_of(1001, 1000),
        jpeg_of(65_500, 65_500),
        webp_of(1001, 1000),
        webp_of(16_384, 16_384),
    ],
    ids=len,
)
def test_a_decompression_bomb_is_refused_by_its_claim(body: bytes) -> None:
    """The refusal comes before a pixel is decoded, so no memory for pixels is touched."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert word_of(body) == "unacceptable"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2048  # KiB


def test_images_of_an_accepted_size_are_decoded() -> None:
    """The bombs above fail for their size only."""
    assert images.decode(webp_of(1000, 1000), LIMITS).shape == (3, 32, 32)
    assert images.decode(jpeg_of(64, 64), LIMITS).shape == (3, 32, 32)


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    """Each scan costs a pass over the image and only a few bytes of the body."""
    body = encode(picture(), "JPEG", progressive=True)
    last = body.rindex(b"\xff\xda")
    assert word_of(body[:last] + body[last:-2] * 1000 + body[-2:]) == "unacceptable"
    images.decode(body, LIMITS)


@pytest.mark.parametrize(
    ("kind", "start"), [(b"iCCP", b"name\0\0"), (b"zTXt", b"key\0\0"), (b"iTXt", b"key\0\1\0\0\0")]
)
def test_compressed_metadata_are_not_inflated(kind: bytes, start: bytes) -> None:
    """A text bomb of 100 MB, and a thousand small ones, cost nothing and damage nothing."""
    body = encode(picture())
    bombs = chunk(kind, start + zlib.compress(bytes(100_000_000))) + chunk(kind, start + zlib.compress(b"x")) * 1000
    assert (images.decode(body[:33] + bombs + body[33:], LIMITS) == images.decode(body, LIMITS)).all()


def test_an_image_that_costs_more_than_its_place_allows_is_heavy() -> None:
    """Many pieces, many pixels and many images raise Heavy where only light work is allowed."""
    light = dataclasses.replace(LIMITS, cost=images.LIGHT)
    body = encode(picture())
    for heavy, count in ((body[:33] + chunk(b"tEXt", b"x") * 100 + body[33:], 1), (webp_of(300, 300), 1), (body, 17)):
        with pytest.raises(images.Heavy):
            images.decode(heavy, light, count)
        images.decode(heavy, LIMITS, count)


def test_more_pixels_than_pillows_own_limit_can_be_admitted() -> None:
    """`max_pixels` is the limit, also above Pillow's 178,956,970; the refusal comes before a pixel is decoded."""
    wide = images.Limits(max_images=1, max_pixels=400_000_000)
    assert word_of(png_of(20_000, 20_001, b""), wide) == "unacceptable"
    assert word_of(png_of(20_000, 20_000, b""), wide) == "not_an_image"


@pytest.mark.parametrize("kind", KINDS)
def test_an_encoded_image_is_not_taken_for_pixels(kind: str) -> None:
    """A file whose length is that of raw pixels is refused with what it is."""
    body = encode(picture(16), kind)
    with pytest.raises(ServiceError, match=f"(?i)a {kind} file, not raw pixels"):
        images.raw(body + bytes(-len(body) % 3072), LIMITS)

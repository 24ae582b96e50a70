"""The input path is part of the model: these pictures give exactly these pixels, whoever reads them."""

import hashlib
import io

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from models.preprocess import to_pixels


def ramp(height: int, width: int, channels: int) -> NDArray[np.uint8]:
    """A picture without symmetry, `[height, width, channels] uint8`."""
    y, x, c = np.ogrid[:height, :width, :channels]
    return ((7 * y + 3 * x + 50 * c + (x * y) % 31) % 256).astype(np.uint8)


def through(image: Image.Image, kind: str = "PNG", **options: object) -> Image.Image:
    """The image encoded and opened again."""
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return Image.open(buffer)


def rgb(height: int = 32, width: int = 32) -> Image.Image:
    return Image.fromarray(ramp(height, width, 3))


def rotated() -> Image.Image:
    exif = Image.Exif()
    exif[0x0112] = 6
    return through(rgb(48, 64), exif=exif)


def sixteen_bit() -> Image.Image:
    return through(Image.fromarray(ramp(32, 32, 1)[..., 0].astype(np.uint16) * 257))


PICTURES = {
    "rgb": lambda: through(rgb()),
    "larger": lambda: through(rgb(50, 50)),
    "wide": lambda: through(rgb(40, 90)),
    "tall": lambda: through(rgb(90, 40)),
    "small": lambda: through(rgb(8, 8)),
    "grey": lambda: through(Image.fromarray(ramp(32, 32, 1)[..., 0])),
    "alpha": lambda: through(Image.fromarray(ramp(32, 32, 4))),
    "grey alpha": lambda: through(Image.fromarray(ramp(32, 32, 2), "LA")),
    "palette": lambda: through(rgb().quantize(16)),
    "one bit": lambda: through(Image.fromarray(ramp(32, 32, 1)[..., 0] > 127)),
    "16 bit": sixteen_bit,
    "exif": rotated,
    "webp": lambda: through(rgb(), "WEBP", lossless=True),
}
"""Lossless only: a JPEG decoder may change its last bit with its library, and is held by tolerance below."""

GOLDEN = {
    "rgb": "8f6a62632b4402bb",
    "larger": "ca8cedebfb26319f",
    "wide": "23b6eb922888a3f1",
    "tall": "0ac825e7abd2f63d",
    "small": "811fa88d364e3a27",
    "grey": "22d58fd6203575f1",
    "alpha": "2ae102543d4865d2",
    "grey alpha": "609c5851fa046a37",
    "palette": "96b3869bca4c2394",
    "one bit": "ce6236bd0724514a",
    "16 bit": "22d58fd6203575f1",
    "exif": "cc6e5da3ffef8ceb",
    "webp": "8f6a62632b4402bb",
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_gives_exactly_these_pixels(name: str) -> None:
    """SHA-256 of the `[3, 32, 32] uint8` pixels."""
    pixels = to_pixels(PICTURES[name]())
    assert (pixels.shape, pixels.dtype, pixels.flags.c_contiguous) == ((3, 32, 32), np.uint8, True)
    assert hashlib.sha256(pixels.tobytes()).hexdigest()[:16] == GOLDEN[name]


def test_a_32x32_rgb_picture_is_not_touched() -> None:
    """The test set's own images go through unchanged, channel first."""
    assert (to_pixels(through(rgb())) == ramp(32, 32, 3).transpose(2, 0, 1)).all()


def test_16_bits_are_scaled_not_clipped() -> None:
    """A 16-bit greyscale PNG of v * 257 is the 8-bit picture of v."""
    assert (to_pixels(sixteen_bit())[0] == ramp(32, 32, 1)[..., 0]).all()


def test_transparency_is_laid_over_white() -> None:
    """A fully transparent picture is white, whatever colour hides in it."""
    assert (to_pixels(through(Image.new("RGBA", (32, 32), (255, 0, 0, 0)))) == 255).all()


def test_exif_rotation_is_applied() -> None:
    """Orientation 6 shows the picture turned by 90 degrees clockwise."""
    turned = rgb(48, 64).transpose(Image.Transpose.ROTATE_270)
    assert (to_pixels(rotated()) == to_pixels(turned)).all()


def test_the_centre_of_a_wide_picture_counts() -> None:
    """What lies outside the centred square does not matter."""
    wide = ramp(32, 96, 3)
    wide[:, :32], wide[:, 64:] = 0, 255
    assert (to_pixels(through(Image.fromarray(wide))) == ramp(32, 96, 3)[:, 32:64].transpose(2, 0, 1)).all()


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "L"])
def test_a_jpeg_is_close_to_its_original(mode: str) -> None:
    """JPEG in its colour modes, CMYK too, within its own loss."""
    smooth = Image.fromarray(np.kron(ramp(4, 4, 3), np.ones((8, 8, 1), np.uint8)) // 2 + 60).convert(mode)
    pixels = to_pixels(through(smooth, "JPEG", quality=98, subsampling=0))
    assert np.abs(pixels.astype(int) - to_pixels(smooth.convert("RGB")).astype(int)).mean() < 4

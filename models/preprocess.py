"""The input path of the network: any image to 32x32 RGB pixels, the same for training data, evaluation and service."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

SIDE = 32


def to_pixels(image: Image.Image) -> NDArray[np.uint8]:
    """An image as `[3, 32, 32] uint8`, RGB, channel first.

    A 32x32 RGB image passes unchanged. Otherwise: rotated as its EXIF orientation says, 16-bit scaled to 8,
    transparency laid over white, greyscale, palette and CMYK converted to RGB, the largest centred square cut out and
    resized (bicubic, antialiased).
    """
    ImageOps.exif_transpose(image, in_place=True)
    image = _rgb(image)
    if image.size != (SIDE, SIDE):
        image = ImageOps.fit(image, (SIDE, SIDE), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image, np.uint8).transpose(2, 0, 1))


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")

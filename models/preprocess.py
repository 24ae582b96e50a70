"""The input path of the network: any image to square RGB pixels, the same in training, evaluation and service."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

SIDE = 32
"""Height and width in pixels of the bundled network's images."""


def to_pixels(image: Image.Image, side: int = SIDE) -> NDArray[np.uint8]:
    """Return an image as `[3, side, side] uint8`, RGB, channel first.

    An RGB image of that size passes unchanged. Others are rotated by their EXIF orientation, scaled from 16 bits to 8,
    laid over white where transparent, converted from greyscale, palette or CMYK to RGB, cut to their largest centred
    square and resized (bicubic, antialiased).
    """
    ImageOps.exif_transpose(image, in_place=True)
    image = _rgb(image)
    if image.size != (side, side):
        image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image, np.uint8).transpose(2, 0, 1))


def resized(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return `[N, 3, H, W] uint8` images as `[N, 3, side, side]`, each resized by `to_pixels`."""
    if pixels.shape[2:] == (side, side):
        return pixels
    return np.stack([to_pixels(Image.fromarray(image.transpose(1, 2, 0)), side) for image in pixels])


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = Image.fromarray((np.asarray(image).astype(np.uint32) >> 8).clip(0, 255).astype(np.uint8))
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image.convert("RGB")

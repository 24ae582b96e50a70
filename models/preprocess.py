"""The input path of the network: any image to square RGB pixels, the same in training, evaluation and service."""

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

SIDE = 32
"""Height and width in pixels of the bundled network's images."""
ORIENTATION = 0x0112
UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
"""What makes an image upright, by its EXIF orientation."""
METADATA = {"exif", "Raw profile type exif", "xmp", "XML:com.adobe.xmp"}
"""The entries of Pillow's `info` that may tell an orientation. Most small images have none."""
GREY_STEPS = {"1": 255, "L;2": 85, "L;4": 17}
"""The 8-bit difference between neighbouring values of a grey PNG of few bits, by Pillow's raw mode."""


def to_pixels(image: Image.Image, side: int = SIDE) -> NDArray[np.uint8]:
    """Return an image as `[3, side, side] uint8`, RGB, channel first.

    An RGB image of that size passes unchanged. Others are rotated by their EXIF orientation, scaled from 16 bits to 8,
    laid over white where transparent, converted from greyscale, palette or CMYK to RGB, cut to their largest centred
    square and resized (bicubic, antialiased). EXIF data that cannot be read leave the image as it lies.
    """
    image = _rgb(_upright(image))
    if image.size != (side, side):
        image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image, np.uint8).transpose(2, 0, 1))


def resized(pixels: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Return `[N, 3, H, W] uint8` images as `[N, 3, side, side]`, each resized by `to_pixels`."""
    if pixels.shape[2:] == (side, side):
        return pixels
    return np.stack([to_pixels(Image.fromarray(image.transpose(1, 2, 0)), side) for image in pixels])


def _upright(image: Image.Image) -> Image.Image:
    transparency = _transparency(image)  # the raw mode is known until the pixels are loaded
    image.load()  # not below: damaged pixels are an error
    method = None
    try:
        if METADATA & image.info.keys():
            method = UPRIGHT.get(image.getexif().get(ORIENTATION, 1))
    except Exception:  # noqa: BLE001 - damaged EXIF data raise anything: struct.error, SyntaxError, ...
        method = None
    upright = image.transpose(method) if method is not None else image
    if transparency is not None:
        upright.info["transparency"] = transparency
    return upright


def _transparency(image: Image.Image) -> int | bytes | tuple[int, ...] | None:
    """Return the transparent value on the scale of the loaded pixels; Pillow leaves it on the scale of the file."""
    value: int | bytes | tuple[int, ...] | None = image.info.get("transparency")
    tiles = getattr(image, "tile", None)
    raw_mode = tiles[0][3] if tiles else ""
    if isinstance(value, int) and raw_mode in GREY_STEPS:
        return value * GREY_STEPS[raw_mode]
    if isinstance(value, tuple) and raw_mode == "RGB;16B":
        return tuple(part >> 8 for part in value)
    return value


def _rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _eight_bits(image)
    if image.has_transparency_data:
        layer = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", layer.size, "white"), layer)
    return image if image.mode == "RGB" else image.convert("RGB")


def _eight_bits(image: Image.Image) -> Image.Image:
    """Return a 16-bit grey image in 8 bits, with an alpha channel where one value is transparent."""
    values, transparent = np.asarray(image).astype(np.uint32), image.info.get("transparency")
    grey = Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8))
    if isinstance(transparent, int):
        grey.putalpha(Image.fromarray(np.where(values == transparent, 0, 255).astype(np.uint8)))
    return grey

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
MOST_LENGTHS = 8
"""The most times that an image may be as long as it is wide, or as wide as it is long, before its middle is cut out."""
GREY_STEPS = {"1": 255, "L;2": 85, "L;4": 17}
"""The 8-bit difference between neighbouring values of a grey PNG of few bits, by Pillow's raw mode."""


def to_pixels(image: Image.Image, side: int = SIDE, resize: int | None = None) -> NDArray[np.uint8]:
    """Return an image as `[3, side, side] uint8`, RGB, channel first.

    An image is rotated by its EXIF orientation, scaled from 16 bits to 8, laid over white where transparent, and
    converted from greyscale, palette or CMYK to RGB. EXIF data that cannot be read leave the image as it lies.

    Args:
        image: the image.
        side: height and width of the result.
        resize: None cuts the image to its largest centred square and resizes that (bicubic, antialiased); an image of
            the right size passes unchanged. A number prepares it as torchvision's transforms for evaluation do: the
            shorter side is resized to it (bilinear, antialiased), then the centre is cut out. At least `side`.
    """
    image = _rgb(_upright(image))
    if resize is not None:
        image = _centre(_shorter_side_resized(image, resize), side, side)
    elif image.size != (side, side):
        image = ImageOps.fit(image, (side, side), Image.Resampling.BICUBIC)
    return np.ascontiguousarray(np.asarray(image, np.uint8).transpose(2, 0, 1))


def _shorter_side_resized(image: Image.Image, size: int) -> Image.Image:
    """Return the image as torchvision's `Resize(size)` gives it. Of a long image only the middle is resized."""
    shorter = min(image.size)
    image = _centre(image, *(min(length, MOST_LENGTHS * shorter) for length in image.size))
    width, height = (size if length == shorter else int(size * length / shorter) for length in image.size)
    return image.resize((width, height), Image.Resampling.BILINEAR)


def _centre(image: Image.Image, width: int, height: int) -> Image.Image:
    """Return the middle of an image as torchvision's `CenterCrop` gives it."""
    if image.size == (width, height):
        return image
    left, top = round((image.width - width) / 2), round((image.height - height) / 2)
    return image.crop((left, top, left + width, top + height))


def resized(pixels: NDArray[np.uint8], side: int, resize: int | None = None) -> NDArray[np.uint8]:
    """Return `[N, 3, H, W] uint8` images as `[N, 3, side, side]`, each prepared by `to_pixels`.

    Images that have this size already pass unchanged.
    """
    if pixels.shape[2:] == (side, side):
        return pixels
    return np.stack([to_pixels(Image.fromarray(image.transpose(1, 2, 0)), side, resize) for image in pixels])


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

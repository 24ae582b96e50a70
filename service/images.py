"""Hostile bytes to pixels."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.preprocess import to_pixels
from service.errors import ServiceError

FORMATS = ("PNG", "JPEG", "WEBP")


def decode(body: bytes, max_pixels: int, side: int) -> NDArray[np.uint8]:
    """An encoded PNG, JPEG or WebP image as `[3, side, side] uint8` (models.preprocess says how).

    Of an animated image the first frame counts.

    Raises:
        ServiceError: `not_an_image`; `unacceptable` when it has more than `max_pixels`, before any pixel is decoded.
    """
    try:
        image = Image.open(io.BytesIO(body), formats=FORMATS)
        if image.width * image.height > max_pixels:
            raise ServiceError(
                "unacceptable",
                f"the image has {image.width} x {image.height} pixels, at most {max_pixels} are accepted",
            )
        return to_pixels(image, side)
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ServiceError(
            "unacceptable", f"the image has too many pixels, at most {max_pixels} are accepted"
        ) from None
    except UnidentifiedImageError:
        raise ServiceError("not_an_image", "expected the bytes of a PNG, JPEG or WebP image") from None
    except (
        OSError,
        SyntaxError,
        ValueError,
        EOFError,
        IndexError,
        TypeError,
        KeyError,
        OverflowError,
        MemoryError,
    ) as error:
        raise ServiceError("not_an_image", f"the image is damaged or truncated ({type(error).__name__})") from None


def raw(body: bytes, side: int) -> NDArray[np.uint8]:
    """N images of 3 x side x side bytes as `[N, 3, side, side] uint8`.

    Raises:
        ServiceError: `unacceptable`, the length is no multiple of an image's.
    """
    size = 3 * side * side
    if not body or len(body) % size:
        raise ServiceError(
            "unacceptable",
            f"raw pixels are N x {size} bytes (uint8, [3, {side}, {side}] channel first each), got {len(body)} bytes",
        )
    return np.frombuffer(body, np.uint8).reshape(-1, 3, side, side)

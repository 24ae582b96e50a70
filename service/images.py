"""One encoded image to pixels; the bytes may be hostile."""

import io
import math
import time
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.preprocess import SIDE, to_pixels
from service.errors import ServiceError

FORMATS = ("PNG", "JPEG", "WEBP")
PIECES = {b"\x89PNG": (b"iCCP", b"iTXt", b"zTXt"), b"\xff\xd8": (b"\xff\xda",)}
"""First bytes of a file -> the marks of its pieces that cost much time for few bytes. Pillow inflates each compressed
metadata chunk when it opens a PNG, up to 1 MiB each. Each scan of a JPEG is a pass over the whole image."""
MAX_PIECES = 100
"""Most such pieces of one image. Progressive JPEGs have about ten scans, PNGs a handful of such chunks."""
LIGHT_PIECES = 4
LIGHT_PIXELS = 65_536
LIGHT_IMAGES = 4
"""What an image, or a request, may have at most to be decoded at once while other requests wait."""


def check_count(count: int, most: int) -> None:
    """Raise ServiceError (`unacceptable`) if there are more than `most` images."""
    if count > most:
        raise ServiceError("unacceptable", f"a request may hold at most {most} images, got {count}")


class Heavy(Exception):
    """Decoding takes too long to make other requests wait for it."""


@dataclass(frozen=True)
class Limits:
    """The limits of decoding, and the size of its result. Each check raises ServiceError: `unacceptable`."""

    max_images: int
    max_pixels: int
    until: float = math.inf
    """A reading of `time.perf_counter()`."""
    light: bool = False
    """True: the checks raise Heavy before long work."""
    side: int = SIDE
    """Height and width of the pixels that the network reads."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image for the network."""
        return 3, self.side, self.side

    def check_count(self, count: int, is_encoded: bool) -> None:
        """Check the number of images in a request."""
        check_count(count, self.max_images)
        if self.light and is_encoded and count > LIGHT_IMAGES:
            raise Heavy

    def check_pieces(self, body: bytes) -> None:
        """Check how many costly pieces an encoded image has."""
        pieces = next((pieces for start, pieces in PIECES.items() if body.startswith(start)), ())
        count = sum(map(body.count, pieces))
        if count > MAX_PIECES:
            raise ServiceError(
                "unacceptable", f"at most {MAX_PIECES} scans (JPEG) or compressed metadata chunks (PNG) are accepted"
            )
        if self.light and count > LIGHT_PIECES:
            raise Heavy

    def check_size(self, width: int, height: int) -> None:
        """Check the size that an encoded image claims to have."""
        if width * height > self.max_pixels:
            raise ServiceError(
                "unacceptable", f"the image has {width} x {height} pixels, at most {self.max_pixels} are accepted"
            )
        if self.light and width * height > LIGHT_PIXELS:
            raise Heavy

    def check_time(self) -> None:
        """Raise ServiceError (`deadline`) past `until`."""
        if time.perf_counter() > self.until:
            raise ServiceError("deadline", "the images took too long to decode")


def decode(body: bytes, limits: Limits) -> NDArray[np.uint8]:
    """Return a PNG, JPEG or WebP image, or its first frame, as `[3, S, S] uint8`, see `models.preprocess.to_pixels`.

    Raises:
        ServiceError: `not_an_image`; `unacceptable`, before any pixel is decoded; `deadline`, before decoding begins.
        Heavy: the limits are light ones and the image is not.
    """
    limits.check_time()
    limits.check_pieces(body)
    try:
        image = Image.open(io.BytesIO(body), formats=FORMATS)
        limits.check_size(image.width, image.height)
        return to_pixels(image, limits.side)
    except (ServiceError, Heavy):
        raise
    except (Image.DecompressionBombError, Image.DecompressionBombWarning):
        raise ServiceError(
            "unacceptable", f"the image has too many pixels, at most {limits.max_pixels} are accepted"
        ) from None
    except UnidentifiedImageError:
        raise ServiceError("not_an_image", "expected the bytes of a PNG, JPEG or WebP image") from None
    except Exception as error:  # noqa: BLE001 - Pillow raises anything on damaged bytes: struct.error, KeyError
        raise ServiceError("not_an_image", f"the image is damaged or truncated ({type(error).__name__})") from None


def raw(body: bytes, limits: Limits) -> NDArray[np.uint8]:
    """Return N images of 3 x S x S bytes each as `[N, 3, S, S] uint8`.

    Raises:
        ServiceError: `unacceptable`: the length is no multiple of an image's.
    """
    size, side = math.prod(limits.shape), limits.side
    if not body or len(body) % size:
        raise ServiceError(
            "unacceptable",
            f"raw pixels are N x {size} bytes (uint8, [3, {side}, {side}] channel first each), got {len(body)} bytes",
        )
    return np.frombuffer(body, np.uint8).reshape(-1, *limits.shape)

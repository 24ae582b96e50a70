"""One encoded image to pixels; the bytes may be hostile."""

import io
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image, UnidentifiedImageError

from models.preprocess import MOST_LENGTHS, SIDE, to_pixels
from service import plain_png
from service.errors import ServiceError
from service.structure import TooManyPieces, reduced, webp_size

FORMATS = ("PNG", "JPEG", "WEBP")
MAX_PIECES = 10_000
"""Most chunks or segments of one image; a 16-megapixel PNG in chunks of 8 KiB has up to 8,000."""
BLOCK = 16
"""The side of the squares that a JPEG or a lossy WebP is decoded in: an image one pixel wide costs as one of 16."""
Image.MAX_IMAGE_PIXELS = None  # Limits.check_size is the limit, and a setting may raise it above Pillow's own


class Heavy(Exception):
    """Decoding costs more than a body may cost in this place."""


@dataclass(frozen=True)
class Cost:
    """The most that decoding one body may take in one place; a body that needs more raises Heavy."""

    encoded_bytes: float
    """Bytes of the body that have to be parsed or decoded; raw pixels have none."""
    images: float
    pixels: float
    """Pixels of all images together, in whole blocks: see BLOCK."""
    pieces: int
    """Chunks or segments of one image."""
    arrays: float = math.inf
    """Arrays in a JSON text, each of which becomes an object."""


LIGHT = Cost(encoded_bytes=65_536, images=4, pixels=65_536, pieces=64, arrays=1000)
"""The cost at which a body is decoded on the event loop, while other requests wait: about a millisecond."""
ORDINARY = Cost(encoded_bytes=2**21, images=256, pixels=2**21, pieces=1000)
"""The cost up to which a body is decoded in one of the ordinary decoders: some 50 milliseconds."""
UNBOUNDED = Cost(math.inf, math.inf, math.inf, MAX_PIECES)
"""The cost of every body that the settings admit."""


@dataclass(frozen=True)
class Limits:
    """The limits that the settings set for every body, and the size of its pixels."""

    max_images: int
    max_pixels: int
    """Pixels of one image."""
    max_parts: int = 300
    max_body_bytes: int = 8 * 2**20
    side: int = SIDE
    """Height and width of the pixels that the network reads."""
    resize: int | None = None
    """How encoded images get this size, see `models.preprocess.to_pixels`."""
    cost: Cost = UNBOUNDED

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of one image for the network."""
        return 3, self.side, self.side

    def _resized_pixels(self, width: int, height: int) -> int:
        """Return the pixels of an image after its shorter side was resized; 0 where it is cut to a square first."""
        if self.resize is None:
            return 0
        return self.resize**2 * min(max(width, height) // max(min(width, height), 1) + 1, MOST_LENGTHS)

    def check_count(self, count: int) -> None:
        """Raise ServiceError (`unacceptable`) if a request holds too many images."""
        if count > self.max_images:
            raise ServiceError("unacceptable", f"a request may hold at most {self.max_images} images, got {count}")

    def check_bytes(self, encoded: int) -> None:
        """Raise Heavy if there are too many bytes to parse for this place."""
        if encoded > self.cost.encoded_bytes:
            raise Heavy

    def check_arrays(self, count: int) -> None:
        """Raise Heavy if a JSON text has too many arrays for this place."""
        if count > self.cost.arrays:
            raise Heavy

    def check_size(self, width: int, height: int, images: int) -> None:
        """Check the size that one of several encoded images claims to have.

        Raises:
            ServiceError: `unacceptable`: it is larger than the settings admit.
            Heavy: so many images of this size cost too much for this place.
        """
        if width * height > self.max_pixels:
            raise ServiceError(
                "unacceptable", f"the image has {width} x {height} pixels, at most {self.max_pixels} are accepted"
            )
        decoded = max(width, BLOCK) * max(height, BLOCK) + self._resized_pixels(width, height)
        if decoded * images > self.cost.pixels or images > self.cost.images:
            raise Heavy


def decode(body: bytes, limits: Limits, images: int = 1) -> NDArray[np.uint8]:
    """Return a PNG, JPEG or WebP image, or its first frame, as `[3, S, S] uint8`, see `models.preprocess.to_pixels`.

    Args:
        body: the file.
        limits: what it may cost.
        images: how many images the request holds.

    Raises:
        ServiceError: `not_an_image`; `unacceptable`, before any pixel is decoded.
        Heavy: the image costs more than it may in this place.
        MemoryError: the process may not have the memory that the image needs.
    """
    try:
        if limits.resize is None and plain_png.is_plain(body, limits.side):
            limits.check_size(limits.side, limits.side, images)
            if (pixels := plain_png.pixels_of(body, limits.side)) is not None:
                return pixels
        if size := webp_size(body):  # Pillow needs memory for the canvas before it tells the size
            limits.check_size(*size, images)
        file = _reduced(body, limits.cost.pieces)
        image = Image.open(io.BytesIO(file), formats=FORMATS)
        limits.check_size(image.width, image.height, images)
        return to_pixels(image, limits.side, limits.resize)
    except (ServiceError, Heavy, MemoryError):
        raise
    except UnidentifiedImageError:
        raise ServiceError("not_an_image", "expected the bytes of a PNG, JPEG or WebP image") from None
    except Exception as error:  # noqa: BLE001 - Pillow raises anything on damaged bytes: struct.error, KeyError
        raise ServiceError("not_an_image", f"the image is damaged or truncated ({type(error).__name__})") from None


def _reduced(body: bytes, pieces: int) -> bytes:
    try:
        return reduced(body, pieces)
    except TooManyPieces as error:
        if pieces < MAX_PIECES:
            raise Heavy from None
        raise ServiceError("unacceptable", str(error)) from None


def raw(body: bytes, limits: Limits) -> NDArray[np.uint8]:
    """Return N images of 3 x S x S bytes each as `[N, 3, S, S] uint8`.

    Raises:
        ServiceError: `unacceptable`: the length is no multiple of an image's, or the bytes are an encoded image.
    """
    size, side = math.prod(limits.shape), limits.side
    if kind := kind_of(body):
        raise ServiceError(
            "unacceptable", f"the body is a {kind} file, not raw pixels: send it with its own Content-Type"
        )
    if not body or len(body) % size:
        raise ServiceError(
            "unacceptable",
            f"raw pixels are N x {size} bytes (uint8, [3, {side}, {side}] channel first each), got {len(body)} bytes",
        )
    return np.frombuffer(body, np.uint8).reshape(-1, *limits.shape)


def kind_of(body: bytes) -> str:
    """Return the format of an encoded image by its first bytes, empty for anything else."""
    if body.startswith(b"\x89PNG\r\n\x1a\n"):
        return "PNG"
    if body.startswith(b"\xff\xd8\xff") and b"\xff\xd9" in body[-4096:]:
        return "JPEG"
    if body.startswith(b"RIFF") and body[8:12] == b"WEBP":
        return "WebP"
    return ""

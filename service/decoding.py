"""A received body to pixels: raw image, multipart, JSON, raw pixels. One row per content type.

Everything here runs on bytes that a client chose, either on the event loop, if it is light, or in a decoder process
(service.decoders), so it imports nothing that a decoder does not need.
"""

import base64
import binascii
import math
import re
import zlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from service import images
from service.errors import ServiceError
from service.images import Limits
from service.multipart import files_of
from service.schemas import JSONBody
from service.validation import first_mistake

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp")
IDENTITY = "identity"
ENCODINGS = (IDENTITY, "gzip", "deflate")
HEADER_LENGTH = "Inference-Header-Content-Length"
"""The header of /v2 that tells the length of the JSON before binary tensors."""
MOST_OBJECTS = 1000
"""Most objects in a JSON body; one of an inference request has four."""
DATA_URL = re.compile(r"data:[\w.+-]+/[\w.+-]+(?:;[\w.+-]+=[\w.+-]+)*;base64,", re.ASCII)
SPACE = str.maketrans("", "", " \t\r\n")
URL_SAFE = str.maketrans("-_", "+/")


@dataclass(frozen=True, slots=True)
class Received:
    """A whole body as it arrived, and the headers that say what it holds. It can be sent to another process."""

    body: bytes
    media_type: str
    """The Content-Type with its parameters; empty if the request has none."""
    encoding: str
    """The Content-Encoding, one of ENCODINGS."""
    header_length: str | None
    """Inference-Header-Content-Length, as it was sent."""

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case."""
        return self.media_type.partition(";")[0].strip().lower()

    def inflated(self, limits: Limits) -> bytes:
        """Return the body without its Content-Encoding.

        Raises:
            ServiceError: see `inflated`.
            images.Heavy: the body is encoded, and this is no place to inflate it.
        """
        if self.encoding == IDENTITY:
            return self.body
        if limits.cost is images.LIGHT:
            raise images.Heavy
        return inflated(self.body, self.encoding, limits.max_body_bytes)


def inflated(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo a Content-Encoding, never beyond `limit` bytes.

    Raises:
        ServiceError: `malformed` or `too_large`.
    """
    if encoding == IDENTITY:
        return body
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: the header says whether it is gzip or zlib
    try:
        content = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise ServiceError("malformed", f"the body is not {encoding}") from None
    if len(content) > limit:
        raise ServiceError("too_large", f"the body may have at most {limit} bytes, also once it is decompressed")
    if not inflater.eof or inflater.unused_data:
        raise ServiceError("malformed", f"the {encoding} body is truncated, or more follows it")
    return content


def pixels_of(received: Received, limits: Limits) -> NDArray[np.uint8]:
    """Return the images of the body as `[N, 3, S, S] uint8`, S the side that the network reads.

    Raises:
        ServiceError: `unsupported_type`, `malformed`, `not_an_image`, `unacceptable` or `too_large`.
        images.Heavy: the body costs more than it may in this place.
    """
    try:
        parse = PARSERS[received.content_type]
    except KeyError:
        raise ServiceError(
            "unsupported_type",
            f"expected {', '.join(IMAGE_TYPES)}, multipart/form-data, application/json or application/octet-stream, "
            f"got {received.content_type or 'no content type'}",
        ) from None
    body = received.inflated(limits)
    return decode(parse(received.media_type, body, limits), body, limits)


def _one_image(_: str, body: bytes, limits: Limits) -> list[bytes]:
    limits.check_bytes(len(body))
    return [body]


def _raw_pixels(_: str, body: bytes, limits: Limits) -> None:
    return None


def _json_images(_: str, body: bytes, limits: Limits) -> list[bytes]:
    limits.check_bytes(len(body))
    check_json(body, 4 * limits.max_images)
    try:
        parsed = JSONBody.model_validate_json(body)
    except ValidationError as error:
        raise ServiceError("malformed", f"expected {JSONBody.EXPECTED}: {first_mistake(error)}") from None
    texts = parsed.all_images()
    limits.check_count(len(texts))
    return from_base64(texts)


def _multipart_images(media_type: str, body: bytes, limits: Limits) -> list[bytes]:
    limits.check_bytes(len(body))
    parts = files_of(media_type, body, "image", limits.max_parts)
    if not parts:
        raise ServiceError("unacceptable", "expected at least one file part named `image`")
    return parts


Parser = Callable[[str, bytes, Limits], list[bytes] | None]
PARSERS: dict[str, Parser] = {
    **dict.fromkeys(IMAGE_TYPES, _one_image),
    "multipart/form-data": _multipart_images,
    "application/json": _json_images,
    "application/octet-stream": _raw_pixels,
}
"""Content type -> the function that finds the encoded images in such a body; it gives None for raw pixels."""


def check_json(body: bytes, most_values: int) -> None:
    """Bound what a JSON text becomes, before any of it is an object.

    The marks are counted wherever they stand, also inside of texts, where base64 has none of them.

    Raises:
        ServiceError: `malformed`: too many objects, or more than `most_values` values.
    """
    objects = body.count(b"{")
    if objects > MOST_OBJECTS:
        raise ServiceError("malformed", f"the JSON has {objects} objects, at most {MOST_OBJECTS} are accepted")
    values = body.count(b",") + body.count(b"[") + objects
    if values > most_values + MOST_OBJECTS:
        most = most_values + MOST_OBJECTS
        raise ServiceError("malformed", f"the JSON has {values} values, at most {most} are accepted")


def from_base64(texts: list[str]) -> list[bytes]:
    """Return what each text encodes.

    Accepts what browsers and mobile libraries write: a `data:` URL, line breaks, the URL-safe alphabet, and no padding.

    Raises:
        ServiceError: `malformed`; the detail names the image if there are several.
    """
    return [_from_base64(text, "" if len(texts) == 1 else f" {index}") for index, text in enumerate(texts)]


def _from_base64(text: str, name: str) -> bytes:
    if text.startswith("data:"):
        prefix = DATA_URL.match(text)
        if prefix is None:
            raise ServiceError("malformed", f"image{name}: expected a data URL that ends in `;base64,` and base64")
        text = text[prefix.end() :]
    text = text.translate(SPACE).translate(URL_SAFE).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise ServiceError("malformed", f"image{name} is not valid base64") from None


def decode(parts: list[bytes] | None, body: bytes, limits: Limits, expected: int | None = None) -> NDArray[np.uint8]:
    """Return the images of one request as `[N, 3, S, S] uint8`, S the limits' side.

    Args:
        parts: encoded images; None if `body` holds raw pixels.
        body: raw pixels, read only if `parts` is None.
        limits: how many images, how large, at which cost.
        expected: the number of images that the request announces, if it announces one.

    Raises:
        ServiceError: `not_an_image` or `unacceptable`; the detail names the image if there are several.
        images.Heavy: see `images.decode`.
    """
    count = len(body) // math.prod(limits.shape) if parts is None else len(parts)
    if expected is not None and count != expected:
        raise ServiceError("unacceptable", f"the shape says {expected} images, the data holds {count}")
    limits.check_count(count)
    if parts is None:
        return images.raw(body, limits)
    if len(parts) == 1:
        return images.decode(parts[0], limits)[np.newaxis]
    return np.stack([_decode_one(i, part, len(parts), limits) for i, part in enumerate(parts)])


def _decode_one(index: int, part: bytes, count: int, limits: Limits) -> NDArray[np.uint8]:
    try:
        return images.decode(part, limits, count)
    except ServiceError as error:
        raise ServiceError(error.reason.word, f"image {index} (of {count}, from 0): {error.detail}") from None

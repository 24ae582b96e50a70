"""A received body to pixels: raw image, multipart, JSON, raw pixels. One row per content type."""

import base64
import binascii
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser

from service import images
from service.bodies import decoding, in_thread
from service.deadline import Deadline
from service.errors import ServiceError, first_mistake
from service.schemas import JSONBody
from service.settings import Settings

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp")
THREAD_BYTES = 65_536
"""Bodies of this size and larger are decoded in a thread, whatever they hold."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Received:
    """A whole body with its headers, and the limits that decoding meets."""

    headers: Headers
    body: bytes
    settings: Settings
    deadline: Deadline

    @property
    def content_type(self) -> str:
        """The media type without parameters, in lower case; empty if the request has none."""
        return self.headers.get("content-type", "").partition(";")[0].strip().lower()


async def decoded(received: Received) -> NDArray[np.uint8]:
    """Return the images of the body as `[N, 3, S, S] uint8`, S the side that the network reads.

    Raises:
        ServiceError: `unsupported_type`, `malformed`, `not_an_image`, `unacceptable`, `deadline` or `client_deadline`.
    """
    parts = await encoded_parts(received)
    encoded_bytes = 0 if parts is None else len(received.body)  # raw pixels need no decoding
    return await timely(partial(decode, parts, received.body), encoded_bytes, received)


async def encoded_parts(received: Received) -> list[bytes] | None:
    """Return the encoded images in the body, or None if it holds raw pixels.

    Raises:
        ServiceError: `unsupported_type`, `malformed`, `unacceptable` (no image, or too many), and see `in_thread`.
    """
    try:
        parse = PARSERS[received.content_type]
    except KeyError:
        raise ServiceError(
            "unsupported_type",
            f"expected {', '.join(IMAGE_TYPES)}, multipart/form-data, application/json or application/octet-stream, "
            f"got {received.content_type or 'no content type'}",
        ) from None
    return await parse(received)


async def _one_image(received: Received) -> list[bytes]:
    return [received.body]


async def _raw_pixels(_: Received) -> None:
    return None


async def _json_images(received: Received) -> list[bytes]:
    work = partial(_from_json, received.body, received.settings.max_images)
    if len(received.body) < THREAD_BYTES:
        return work()
    return await in_thread(work, decoding(received.settings, received.deadline))


def _from_json(body: bytes, most: int) -> list[bytes]:
    try:
        parsed = JSONBody.model_validate_json(body)
    except ValidationError as error:
        raise ServiceError("malformed", f"expected {JSONBody.EXPECTED}: {first_mistake(error)}") from None
    texts = parsed.all_images()
    images.check_count(len(texts), most)
    return from_base64(texts)


def from_base64(texts: list[str]) -> list[bytes]:
    """Return what each text encodes.

    Raises:
        ServiceError: `malformed`.
    """
    try:
        return [base64.b64decode(text, validate=True) for text in texts]
    except (binascii.Error, ValueError):
        raise ServiceError("malformed", "an image is not valid base64") from None


async def _multipart_images(received: Received) -> list[bytes]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield received.body

    settings = received.settings
    parser = MultiPartParser(
        received.headers,
        stream(),
        max_files=settings.max_parts,
        max_fields=settings.max_parts,
        max_part_size=settings.max_body_bytes,
    )
    parser.spool_max_size = settings.max_body_bytes + 1  # the body is in memory already: no part goes to a file
    try:
        form = await parser.parse()
    except (MultiPartException, KeyError, UnicodeError, ValueError) as error:
        raise ServiceError("malformed", f"the multipart body could not be read: {error}") from None
    try:
        parts = [await part.read() for part in form.getlist("image") if isinstance(part, UploadFile)]
    finally:
        await form.close()
    if not parts:
        raise ServiceError("unacceptable", "expected at least one file part named `image`")
    return parts


Parser = Callable[[Received], Awaitable[list[bytes] | None]]
PARSERS: dict[str, Parser] = {
    **dict.fromkeys(IMAGE_TYPES, _one_image),
    "multipart/form-data": _multipart_images,
    "application/json": _json_images,
    "application/octet-stream": _raw_pixels,
}
"""Content type -> the function that finds the encoded images in such a body."""


async def timely(work: Callable[[images.Limits], T], size: int, received: Received) -> T:
    """Return the result of `work`, which decodes `size` bytes: at once if it is light, else in a thread.

    A thread leaves the event loop to other requests, because Pillow releases the GIL.

    Raises:
        ServiceError: `deadline` past `decode_timeout`, the request's deadline's, and what `work` raises.
    """
    settings = received.settings
    if size < THREAD_BYTES:
        try:
            return work(images.Limits(settings.max_images, settings.max_pixels, light=True, side=settings.side))
        except images.Heavy:
            pass
    until = decoding(settings, received.deadline)
    limits = images.Limits(
        settings.max_images, settings.max_pixels, until=until.began + until.seconds, side=settings.side
    )
    return await in_thread(lambda: work(limits), until)


def decode(
    parts: list[bytes] | None, body: bytes, limits: images.Limits, expected: int | None = None
) -> NDArray[np.uint8]:
    """Return the images of one request as `[N, 3, S, S] uint8`, S the limits' side.

    Args:
        parts: encoded images; None if `body` holds raw pixels.
        body: raw pixels, read only if `parts` is None.
        limits: how many images, how large, until when.
        expected: the number of images that the request announces, if it announces one.

    Raises:
        ServiceError: `not_an_image`, `unacceptable` or `deadline`; the detail names the image if there are several.
        images.Heavy: see `images.Limits`.
    """
    count = len(body) // math.prod(limits.shape) if parts is None else len(parts)
    if expected is not None and count != expected:
        raise ServiceError("unacceptable", f"the shape says {expected} images, the data holds {count}")
    limits.check_count(count, is_encoded=parts is not None)
    if parts is None:
        return images.raw(body, limits)
    return np.stack([_decode_one(i, part, len(parts), limits) for i, part in enumerate(parts)])


def _decode_one(index: int, part: bytes, count: int, limits: images.Limits) -> NDArray[np.uint8]:
    try:
        return images.decode(part, limits)
    except ServiceError as error:
        if count == 1:
            raise
        raise ServiceError(error.reason.word, f"image {index} (of {count}, from 0): {error.detail}") from None

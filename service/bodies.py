"""Request bodies to pixels: raw image, multipart, JSON, raw pixels. One row per content type."""

import base64
import binascii
from collections.abc import AsyncGenerator

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from service import images
from service.errors import ServiceError
from service.schemas import JSONBody
from service.settings import Settings

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp")
THREAD_BYTES = 65_536
"""Bodies from this size on are decoded in a thread: Pillow releases the GIL, and other requests go on."""


async def read(request: Request, limit: int) -> bytes:
    """The whole body, refused as soon as it is known to exceed `limit` bytes.

    Raises:
        ServiceError: `too_large`; `client_closed`.
    """
    too_large = ServiceError("too_large", f"the body may have at most {limit} bytes")
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
    chunks, size = [], 0
    try:
        async for chunk in request.stream():
            size += len(chunk)
            if size > limit:
                raise too_large
            chunks.append(chunk)
    except ClientDisconnect:
        raise ServiceError("client_closed", "the client went away while it sent the body") from None
    return b"".join(chunks)


async def encoded_parts(headers: Headers, body: bytes, settings: Settings) -> list[bytes] | None:
    """The encoded images in `body`, or None when it holds raw pixels.

    Raises:
        ServiceError: `unsupported_type`, `malformed`, or `unacceptable` (no image, or too many).
    """
    content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
    if content_type in IMAGE_TYPES:
        return [body]
    if content_type == "application/octet-stream":
        return None
    if content_type == "application/json":
        return _json_images(body)
    if content_type == "multipart/form-data":
        return await _multipart_images(headers, body, settings)
    raise ServiceError(
        "unsupported_type",
        f"expected {', '.join(IMAGE_TYPES)}, multipart/form-data, application/json or application/octet-stream, "
        f"got {content_type or 'no content type'}",
    )


def _json_images(body: bytes) -> list[bytes]:
    try:
        parsed = JSONBody.model_validate_json(body)
    except ValidationError as error:
        first = error.errors(include_url=False, include_context=False, include_input=False)[0]
        where = ".".join(map(str, first["loc"]))
        raise ServiceError(
            "malformed", f"expected {JSONBody.EXPECTED}: {where + ': ' if where else ''}{first['msg']}"
        ) from None
    try:
        return [base64.b64decode(text, validate=True) for text in parsed.all_images()]
    except (binascii.Error, ValueError):
        raise ServiceError("malformed", "an image is not valid base64") from None


async def _multipart_images(headers: Headers, body: bytes, settings: Settings) -> list[bytes]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        headers,
        stream(),
        max_files=settings.max_images,
        max_fields=16,
        max_part_size=settings.max_body_bytes,
    )
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


def decode(parts: list[bytes] | None, body: bytes, settings: Settings) -> NDArray[np.uint8]:
    """The images of one request as `[N, 3, S, S] uint8`, S the setting's side.

    Raises:
        ServiceError: `not_an_image` or `unacceptable`; says which image when there are several.
    """
    count = len(body) // (3 * settings.side**2) if parts is None else len(parts)
    if count > settings.max_images:
        raise ServiceError("unacceptable", f"a request may hold at most {settings.max_images} images, got {count}")
    if parts is None:
        return images.raw(body, settings.side)
    return np.stack([_decode_one(i, part, len(parts), settings) for i, part in enumerate(parts)])


def _decode_one(index: int, part: bytes, count: int, settings: Settings) -> NDArray[np.uint8]:
    try:
        return images.decode(part, settings.max_pixels, settings.side)
    except ServiceError as error:
        if count == 1:
            raise
        raise ServiceError(error.reason.word, f"image {index} (of {count}, from 0): {error.detail}") from None

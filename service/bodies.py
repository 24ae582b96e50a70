"""Request bodies to pixels: raw image, multipart, JSON, raw pixels. One row per content type."""

import asyncio
import base64
import binascii
import math
import time
import zlib
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, contextmanager
from functools import partial
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError
from starlette.datastructures import Headers, UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect, Request

from common import machine
from service import images
from service.deadline import CLIENTS, Deadline
from service.errors import ServiceError
from service.schemas import JSONBody
from service.settings import Settings

IMAGE_TYPES = ("image/png", "image/jpeg", "image/webp")
ENCODINGS = ("identity", "gzip", "deflate")
MOST_INFLATED = 1032
"""Bytes that one byte of DEFLATE can become (zlib's technical details)."""
THREAD_BYTES = 65_536
"""Bodies from this size on are decoded in a thread, whatever they hold."""
DECODERS = ThreadPoolExecutor(1 + machine.available_cores(), "decode")
"""Each may hold several copies of the largest image; one more than cores, so that a slow one stops no other."""
MOST_MISTAKES = 100
"""Pydantic makes an object of each; past this many they are only counted."""
T = TypeVar("T")


class Held:
    """How many bytes the bodies of all requests together hold, until they are decoded."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.bytes = 0

    @contextmanager
    def share(self) -> Iterator[Callable[[int], None]]:
        """One request's part, given back at the end: a function that adds to it (less than 0: gives back before), or
        raises `overloaded`.
        """
        mine = 0

        def grow(size: int) -> None:
            nonlocal mine
            if self.bytes + size > self.most:
                detail = f"the requests that are arriving hold {self.bytes} bytes, at most {self.most} may be held"
                raise ServiceError("overloaded", detail)
            self.bytes += size
            mine += size

        try:
            yield grow
        finally:
            self.bytes -= mine


@asynccontextmanager
async def received(request: Request, settings: Settings, deadline: Deadline) -> AsyncIterator[bytes]:
    """The whole body, refused as soon as it is known to be too large, or comes too slowly; held until the block ends.

    Raises:
        ServiceError: `unsupported_type`, `too_large`, `too_slow`, `client_deadline`, `client_closed` or `overloaded`;
            see `_inflated` and `in_thread`, too.
    """
    held: Held = request.app.state.held
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding not in ENCODINGS:
        raise ServiceError("unsupported_type", f"Content-Encoding: expected gzip, deflate or none, got {encoding!r}")
    with held.share() as grow:
        body = await _read(request, settings, grow, deadline)
        if encoding != "identity":
            body = await _inflate(body, encoding, settings, grow, deadline)
        yield body


def _arriving(settings: Settings, deadline: Deadline) -> Deadline:
    """Until when the body must be there; past the service's own deadline, too, it is the body that was too slow."""
    slow = Deadline(time.perf_counter(), settings.receive_timeout, "too_slow", "the body did not arrive")
    if deadline.word != CLIENTS:
        deadline = Deadline(deadline.began, deadline.seconds, slow.word, slow.what)
    return slow.or_sooner(deadline)


def _decoding(settings: Settings, deadline: Deadline) -> Deadline:
    return deadline.or_sooner(
        Deadline(time.perf_counter(), settings.decode_timeout, what="the images could not be decoded")
    )


async def _read(request: Request, settings: Settings, grow: Callable[[int], None], deadline: Deadline) -> bytes:
    limit, arriving = settings.max_body_bytes, _arriving(settings, deadline)
    too_large = ServiceError("too_large", f"the body may have at most {limit} bytes")
    if int(request.headers.get("content-length", 0)) > limit:
        raise too_large
    chunks, size = [], 0
    try:
        with arriving.kept():
            async with asyncio.timeout(arriving.left):
                async for chunk in request.stream():
                    size += len(chunk)
                    if size > limit:
                        raise too_large
                    grow(len(chunk))
                    chunks.append(chunk)
    except ClientDisconnect:
        raise ServiceError("client_closed", "the client went away while it sent the body") from None
    return b"".join(chunks)


async def _inflate(
    body: bytes, encoding: str, settings: Settings, grow: Callable[[int], None], deadline: Deadline
) -> bytes:
    """The body without its Content-Encoding, in a thread; room for what it may become is taken before."""
    most = min(settings.max_body_bytes, MOST_INFLATED * len(body))
    grow(most)
    work = partial(_inflated, body, encoding, settings.max_body_bytes)
    inflated = await in_thread(work, _decoding(settings, deadline))
    grow(len(inflated) - most - len(body))
    return inflated


def _inflated(body: bytes, encoding: str, limit: int) -> bytes:
    """Undo Content-Encoding, never beyond `limit` bytes.

    Raises:
        ServiceError: `malformed` or `too_large`.
    """
    inflater = zlib.decompressobj(zlib.MAX_WBITS | 32)  # 32: the header says whether it is gzip or zlib
    try:
        inflated = inflater.decompress(body, limit + 1)
    except zlib.error:
        raise ServiceError("malformed", f"the body is not {encoding}") from None
    if len(inflated) > limit:
        raise ServiceError("too_large", f"the body may have at most {limit} bytes, also once it is decompressed")
    if not inflater.eof or inflater.unused_data:
        raise ServiceError("malformed", f"the {encoding} body is truncated, or more follows it")
    return inflated


def content_type_of(headers: Headers) -> str:
    return headers.get("content-type", "").partition(";")[0].strip().lower()


async def encoded_parts(headers: Headers, body: bytes, settings: Settings, deadline: Deadline) -> list[bytes] | None:
    """The encoded images in `body`, or None when it holds raw pixels.

    Raises:
        ServiceError: `unsupported_type`, `malformed`, or `unacceptable` (no image, or too many); see `in_thread`, too.
    """
    content_type = content_type_of(headers)
    if content_type in IMAGE_TYPES:
        return [body]
    if content_type == "application/octet-stream":
        return None
    if content_type == "application/json":
        if len(body) < THREAD_BYTES:
            return _json_images(body, settings.max_images)
        return await in_thread(lambda: _json_images(body, settings.max_images), _decoding(settings, deadline))
    if content_type == "multipart/form-data":
        return await _multipart_images(headers, body, settings)
    raise ServiceError(
        "unsupported_type",
        f"expected {', '.join(IMAGE_TYPES)}, multipart/form-data, application/json or application/octet-stream, "
        f"got {content_type or 'no content type'}",
    )


async def in_thread(work: Callable[[], T], deadline: Deadline) -> T:
    """The result of `work`, which one of DECODERS does.

    Raises:
        ServiceError: the deadline's, and what `work` raises.
    """
    with deadline.kept():
        return await asyncio.wait_for(asyncio.get_running_loop().run_in_executor(DECODERS, work), deadline.left)


def _json_images(body: bytes, most: int) -> list[bytes]:
    try:
        parsed = JSONBody.model_validate_json(body)
    except ValidationError as error:
        raise ServiceError("malformed", f"expected {JSONBody.EXPECTED}: {first_mistake(error)}") from None
    texts = parsed.all_images()
    images.check_count(len(texts), most)
    return from_base64(texts)


def first_mistake(error: ValidationError) -> str:
    """Where and what, without what was sent."""
    if error.error_count() > MOST_MISTAKES:
        return f"{error.error_count()} mistakes"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))


def from_base64(texts: list[str]) -> list[bytes]:
    """Raises ServiceError: `malformed`."""
    try:
        return [base64.b64decode(text, validate=True) for text in texts]
    except (binascii.Error, ValueError):
        raise ServiceError("malformed", "an image is not valid base64") from None


async def _multipart_images(headers: Headers, body: bytes, settings: Settings) -> list[bytes]:
    async def stream() -> AsyncGenerator[bytes, None]:
        yield body

    parser = MultiPartParser(
        headers,
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


async def timely(work: Callable[[images.Limits], T], size: int, settings: Settings, deadline: Deadline) -> T:
    """The result of decoding `size` bytes: at once where it is light, else in a thread (Pillow releases the GIL).

    Raises:
        ServiceError: `deadline` past the setting's time, the deadline's, and what `work` raises.
    """
    if size < THREAD_BYTES:
        try:
            return work(images.Limits(settings.max_images, settings.max_pixels, light=True, side=settings.side))
        except images.Heavy:
            pass
    decoding = _decoding(settings, deadline)
    until = decoding.began + decoding.seconds
    limits = images.Limits(settings.max_images, settings.max_pixels, until=until, side=settings.side)
    return await in_thread(lambda: work(limits), decoding)


def decode(
    parts: list[bytes] | None, body: bytes, limits: images.Limits, expected: int | None = None
) -> NDArray[np.uint8]:
    """The images of one request as `[N, 3, S, S] uint8`: the encoded `parts`, or raw pixels in `body`.

    Args:
        parts: encoded images, None for raw pixels.
        body: raw pixels where `parts` is None.
        limits: how many, how large, how long; S is its side.
        expected: how many images the request says it holds, where it says so.

    Raises:
        ServiceError: `not_an_image`, `unacceptable` or `deadline`; says which image when there are several.
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

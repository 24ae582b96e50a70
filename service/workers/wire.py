"""Frames between the HTTP process and a worker, over a Unix stream socket pair.

A frame is one byte of kind, four bytes of payload length, and the payload. Pixels and logits travel as raw bytes, all
else as JSON. Clock readings are `time.perf_counter()`, on Linux one clock for all processes.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar, cast

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter

from service.workers.status import Failure, Refusal, WorkerInfo

BATCH, RESULT, ERROR, READY, REFUSED, ALLOCATOR = b"B", b"R", b"E", b"Y", b"N", b"A"
"""Kinds of frames: pixels to the worker; from it a Result, Failure, WorkerInfo, Refusal, or its allocator's bytes."""
_HEADER = struct.Struct("<cI")
_MEASURED = struct.Struct("<5dq")
Document = TypeVar("Document", WorkerInfo, Refusal, Failure)
_ADAPTERS: dict[type, TypeAdapter[Any]] = {kind: TypeAdapter(kind) for kind in (WorkerInfo, Refusal, Failure)}


@dataclass(frozen=True, slots=True)
class Result:
    """One executed batch as the worker measured it."""

    logits: NDArray[np.float32]
    """`[N, classes] float32`."""
    started: float
    finished: float
    """Readings of `time.perf_counter()`."""
    copy_in: float
    inference: float
    copy_out: float
    """Device-synchronised seconds of the worker's phases."""
    memory_bytes: int
    """What the batch needed beyond the resident weights."""

    @property
    def computed(self) -> float:
        """The time at which the logits were on the host, if the worker's phases began at `started`.

        The engine checks the pixels in between, so the clock read a little more.
        """
        return self.started + self.copy_in + self.inference + self.copy_out


def critical_path(results: Sequence[Result]) -> list[Result]:
    """Return the batches that the request's end waited for, in time.

    The critical path: starting from the batch that finished last, step back to the latest one that ended before it
    began. One worker's batches are all on it. Batches that other workers ran meanwhile did not make the request longer.
    """
    path: list[Result] = []
    for result in sorted(results, key=lambda result: result.finished, reverse=True):
        if not path or result.finished <= path[-1].started:
            path.append(result)
    return path[::-1]


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    """Return the bytes of one frame."""
    return _HEADER.pack(kind, len(payload)) + payload


def pack_pixels(parts: Sequence[NDArray[np.uint8]]) -> bytes:
    """Return a frame with all images of the parts, each `[N, 3, side, side] uint8`. They are copied once."""
    header = _HEADER.pack(BATCH, sum(part.nbytes for part in parts))
    return b"".join([header, *(np.ascontiguousarray(part).data for part in parts)])


def message(kind: bytes, document: WorkerInfo | Refusal | Failure) -> bytes:
    """Return a frame with a document as JSON; `parse` reads its payload."""
    return frame(kind, json.dumps(asdict(document)).encode())


def parse(document: type[Document], payload: bytes) -> Document:
    """Return the document of a `message`.

    Raises:
        pydantic.ValidationError: the payload is none.
    """
    parsed: Document = _ADAPTERS[document].validate_json(payload)
    return parsed


def pack_allocator(held: dict[str, int]) -> bytes:
    """Return a frame with what a GPU's allocator holds: kind -> bytes."""
    return frame(ALLOCATOR, json.dumps(held).encode())


def unpack_allocator(payload: bytes) -> dict[str, int]:
    """Return what a payload of `pack_allocator` holds."""
    held: dict[str, int] = json.loads(payload)
    return held


def pack_result(result: Result) -> bytes:
    """Return a frame with a result."""
    measured = _MEASURED.pack(
        result.started, result.finished, result.copy_in, result.inference, result.copy_out, result.memory_bytes
    )
    return frame(RESULT, measured + np.ascontiguousarray(result.logits, np.float32).tobytes())


def unpack_result(payload: bytes, classes: int) -> Result:
    """Return the result in a payload of `pack_result`, whose logits have so many classes."""
    logits = np.frombuffer(payload, np.float32, offset=_MEASURED.size).reshape(-1, classes)
    return Result(logits, *_MEASURED.unpack_from(payload))


def unpack_pixels(payload: bytearray, side: int) -> NDArray[np.uint8]:
    """Return the pixels in a payload, without a copy, as `[N, 3, side, side] uint8`."""
    return np.frombuffer(payload, np.uint8).reshape(-1, 3, side, side)


def receive(sock: socket.socket) -> tuple[bytes, bytearray] | None:
    """Wait for the next frame and return its kind and payload; None if the other side is gone."""
    header = _receive_exactly(sock, _HEADER.size)
    if header is None:
        return None
    kind, length = _HEADER.unpack(header)
    payload = _receive_exactly(sock, length)
    return None if payload is None else (kind, payload)


def _receive_exactly(sock: socket.socket, length: int) -> bytearray | None:
    buffer = bytearray(length)
    view, filled = memoryview(buffer), 0
    while filled < length:
        try:
            count = sock.recv_into(view[filled:])
        except ConnectionResetError:
            return None
        if count == 0:
            return None
        filled += count
    return buffer


class Link(asyncio.Protocol):
    """The HTTP process's end. It calls `on_frame(kind, payload)` for each frame, and `on_end()` after the last."""

    def __init__(self, on_frame: Callable[[bytes, bytes], None], on_end: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_end = on_end
        self._buffer = bytearray()
        self._transport: asyncio.WriteTransport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.WriteTransport", transport)  # uvloop's is none of asyncio's classes

    def send(self, frame: bytes) -> None:
        """Send a frame over the connection, which was made: the other side spoke first."""
        assert self._transport is not None
        self._transport.write(frame)

    def close(self) -> None:
        """End the connection if it was made. What waits to be sent is lost."""
        if self._transport is not None:
            self._transport.abort()

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        while len(self._buffer) >= _HEADER.size:
            kind, length = _HEADER.unpack_from(self._buffer)
            end = _HEADER.size + length
            if len(self._buffer) < end:
                return
            payload = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            self._on_frame(kind, payload)

    def connection_lost(self, error: Exception | None) -> None:
        self._on_end()

"""Frames between the HTTP process and a worker, over a Unix stream socket pair.

A frame is one byte of kind, four bytes of payload length, and the payload. Pixels and logits travel as raw bytes, only
the start-up card and errors are JSON. Clock readings are `time.perf_counter()`, on Linux one clock for all processes.
"""

import asyncio
import json
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

BATCH, RESULT, ERROR, READY, REFUSED, ALLOCATOR = b"B", b"R", b"E", b"Y", b"N", b"A"
_HEADER = struct.Struct("<cI")
_MEASURED = struct.Struct("<5dq")


@dataclass(frozen=True, slots=True)
class Result:
    """One executed batch as the worker measured it.

    `logits` is `[N, 10] float32`; times are seconds, device-synchronised; `started` and `finished` are readings of
    `time.perf_counter()`; `memory_bytes` is what the batch needed beyond the resident weights.
    """

    logits: NDArray[np.float32]
    started: float
    finished: float
    copy_in: float
    inference: float
    copy_out: float
    memory_bytes: int

    @property
    def computed(self) -> float:
        """When the logits were on the host: a reading of the clock, but for the checks before the first phase."""
        return self.started + self.copy_in + self.inference + self.copy_out


def frame(kind: bytes, payload: bytes = b"") -> bytes:
    return _HEADER.pack(kind, len(payload)) + payload


def message(kind: bytes, document: dict[str, Any]) -> bytes:
    return frame(kind, json.dumps(document).encode())


def pack_result(result: Result) -> bytes:
    measured = _MEASURED.pack(
        result.started, result.finished, result.copy_in, result.inference, result.copy_out, result.memory_bytes
    )
    return frame(RESULT, measured + np.ascontiguousarray(result.logits, np.float32).tobytes())


def unpack_result(payload: bytes) -> Result:
    logits = np.frombuffer(payload, np.float32, offset=_MEASURED.size).reshape(-1, 10)
    return Result(logits, *_MEASURED.unpack_from(payload))


def unpack_pixels(payload: bytearray, side: int) -> NDArray[np.uint8]:
    return np.frombuffer(payload, np.uint8).reshape(-1, 3, side, side)


def receive(sock: socket.socket) -> tuple[bytes, bytearray] | None:
    """The next frame's kind and payload, or None when the other side is gone. Blocks."""
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
    """The HTTP process's end: calls `on_frame(kind, payload)` for each frame and `on_end()` when the worker is gone."""

    def __init__(self, on_frame: Callable[[bytes, bytes], None], on_end: Callable[[], None]) -> None:
        self._on_frame = on_frame
        self._on_end = on_end
        self._buffer = bytearray()

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

"""Answers leave in as few system calls as possible."""

import asyncio
from collections.abc import Callable
from typing import cast

import pytest

from service.http.one_write import OneWrite


class Wire:
    """A transport that keeps each write."""

    def __init__(self) -> None:
        self.writes: list[bytes] = []
        self.is_closed = False

    def write(self, data: bytes) -> None:
        assert not self.is_closed
        self.writes.append(data)

    def is_closing(self) -> bool:
        return self.is_closed

    def close(self) -> None:
        self.is_closed = True

    abort = close


def wire_after(use: Callable[[OneWrite], object]) -> Wire:
    """Return the wire after one turn of an event loop in which the transport was used."""

    async def turn() -> Wire:
        wire = Wire()
        use(OneWrite(cast("asyncio.Transport", wire), asyncio.get_running_loop()))
        await asyncio.sleep(0)
        return wire

    return asyncio.run(turn())


@pytest.mark.parametrize(
    ("pieces", "writes"),
    [
        ([b"head"], [b"head"]),
        ([b"head", b"body"], [b"headbody"]),
        ([b"head", b"chunk", b"last"], [b"headchunk", b"last"]),
        ([b"head", b""], [b"head"]),
    ],
)
def test_pieces_of_one_turn_leave_together(pieces: list[bytes], writes: list[bytes]) -> None:
    """Nothing is lost or reordered, and nothing waits longer than the turn of the event loop."""
    assert wire_after(lambda transport: [transport.write(piece) for piece in pieces]).writes == writes


def test_closing_sends_what_is_held() -> None:
    """A refused connection gets its answer before it ends."""
    wire = wire_after(lambda transport: (transport.write(b"400"), transport.close()))
    assert (wire.writes, wire.is_closed) == ([b"400"], True)


def test_an_aborted_connection_gets_nothing_more() -> None:
    """Data that are held when the connection is lost are dropped without an error."""
    assert wire_after(lambda transport: (transport.write(b"late"), transport.abort())).writes == []

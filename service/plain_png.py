"""The plainest kind of PNG to pixels, by Pillow's decoder without Pillow's parser of files.

For a PNG of 32x32 the parser, and the layers between it and the decoder, take most of the time: without them decoding
takes a third. Every other file, and every damaged one, is left to Pillow.
"""

import struct
import zlib
from functools import cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image

END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
_CHUNK = struct.Struct(">I4s")
_CHECKSUM_BYTES = 4


@cache
def _beginning(side: int) -> bytes:
    """Return the signature and the header of a plain PNG: 8 bits, RGB, not interlaced."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def is_plain(file: bytes, side: int) -> bool:
    """Return whether a file begins and ends as a plain PNG of side x side pixels."""
    return file.startswith(_beginning(side)) and file.endswith(END)


def pixels_of(file: bytes, side: int) -> NDArray[np.uint8] | None:
    """Return a plain PNG as `[3, side, side] uint8`; None if its pixels are not whole, or in several chunks."""
    start = len(_beginning(side)) + _CHUNK.size
    length, name = _CHUNK.unpack_from(file, start - _CHUNK.size)
    if name != b"IDAT" or start + length + _CHECKSUM_BYTES + len(END) != len(file):
        return None
    try:
        image = Image.frombytes("RGB", (side, side), file[start : start + length], "zip", "RGB", 0)
    except ValueError:
        return None
    rows = np.frombuffer(image.tobytes(), np.uint8).reshape(side, side, 3)
    return rows.transpose(2, 0, 1).copy()

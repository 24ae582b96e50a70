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
_START = 41
"""The first byte of the pixels: signature, header chunk, and the pixels' own length and name come before."""
_AFTER = bytes(4) + END
"""As long as what follows the pixels: their checksum and the last chunk."""


@cache
def _beginning(side: int) -> bytes:
    """Return the signature and the header of a plain PNG: 8 bits, RGB, not interlaced."""
    header = b"IHDR" + struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + header + struct.pack(">I", zlib.crc32(header))


def is_plain(file: bytes, side: int) -> bool:
    """Return whether a file is a PNG of 8-bit RGB, side x side pixels, that has its pixels in one chunk and no more."""
    return file.startswith(_beginning(side)) and file.endswith(END) and _has_one_chunk(file)


def _has_one_chunk(file: bytes) -> bool:
    length, name = _CHUNK.unpack_from(file, _START - _CHUNK.size)
    return bool(name == b"IDAT" and _START + length + len(_AFTER) == len(file))


def pixels_of(file: bytes, side: int) -> NDArray[np.uint8] | None:
    """Return a plain PNG as `[3, side, side] uint8`; None if it is damaged."""
    try:
        image = Image.frombytes("RGB", (side, side), file[_START : -len(_AFTER)], "zip", "RGB", 0)
    except ValueError:
        return None
    rows = np.frombuffer(image.tobytes(), np.uint8).reshape(side, side, 3)
    return rows.transpose(2, 0, 1).copy()

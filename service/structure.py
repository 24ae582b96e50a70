"""The structure of an encoded image, checked and reduced before anything decodes it.

Pillow walks through the pieces of a file (a PNG's chunks, a JPEG's segments) in Python, and inflates compressed
metadata: a small file of many pieces costs seconds. Here a walk over at most `most` pieces keeps those that decide the
pixels and drops the rest: profiles, texts, previews, animation, and whatever follows the image in the file. Of EXIF
data the orientation stays.
"""

import re
import struct
import zlib
from collections.abc import Iterator

from service.orientation import PREFIX, orientation_alone

PNG, JPEG, RIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF"
KEPT_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"IDAT", b"IEND"})
"""The PNG chunks that decide the pixels."""
KEPT_SEGMENTS = {0xE0: b"JFIF\x00", 0xEE: b"Adobe"}
"""The first bytes that an application segment of a JPEG must have to be kept, by its marker."""
EXIF_SEGMENT = 0xE1
DROPPED_SEGMENTS = frozenset({*range(0xE0, 0xF0), 0xFE})
"""Application segments and comments."""
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
MAX_SCANS = 100
"""Scans of a JPEG, each a pass over the whole image; progressive files have about ten."""
WEBP_SIZE_END = 30
"""Bytes of a WebP up to the end of its size, in the longest of the three ways to write it."""
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\x01\xff\xd0-\xd7]")
"""The end of entropy-coded data: a marker that is no restart marker and no stuffed byte."""
_CHUNK = struct.Struct(">I4s")
_RIFF_CHUNK = struct.Struct("<4sI")
_CHECKSUM = struct.Struct(">I")


class TooManyPieces(ValueError):
    """The file has more pieces than are accepted; the text names the kind of piece and the limit."""


def reduced(body: bytes, most: int) -> bytes:
    """Return the file with only the pieces that decide its pixels; `body` itself where nothing is dropped.

    A file that is no PNG, JPEG or WebP, or that breaks its format's structure, comes back from the broken place on as
    it is: the decoder says what is wrong with it.

    Args:
        body: the file.
        most: how many pieces are accepted: chunks of a PNG or WebP, segments of a JPEG.

    Raises:
        TooManyPieces: the file has more pieces, or a JPEG more than MAX_SCANS scans.
    """
    for beginning, walk in ((PNG, _png), (JPEG, _jpeg), (RIFF, _riff)):
        if body.startswith(beginning):
            kept = list(walk(body, most))
            return kept[0] if len(kept) == 1 else b"".join(kept)
    return body


def _png(body: bytes, most: int) -> Iterator[bytes]:
    """Yield the parts of the file to keep, neighbours merged."""
    start, position = 0, len(PNG)
    for _ in range(most):
        if position + _CHUNK.size > len(body):
            yield body[start:]
            return
        length, name = _CHUNK.unpack_from(body, position)
        end = position + _CHUNK.size + length + 4
        if name == b"IEND" or end > len(body):
            yield body[start:end]
            return
        if name == b"eXIf":
            yield body[start:position]
            yield _exif_chunk(body[position:end])
            start = end
        elif name not in KEPT_CHUNKS:
            yield body[start:position]
            start = end
        position = end
    raise TooManyPieces(f"at most {most} chunks of a PNG are accepted")


def _exif_chunk(chunk: bytes) -> bytes:
    """Return an eXIf chunk with the orientation alone; the chunk itself if its checksum is wrong."""
    named, checksum = chunk[4:-4], chunk[-4:]
    if _CHECKSUM.pack(zlib.crc32(named)) != checksum:
        return chunk
    content = b"eXIf" + orientation_alone(named[4:])
    return _CHECKSUM.pack(len(content) - 4) + content + _CHECKSUM.pack(zlib.crc32(content))


def _jpeg(body: bytes, most: int) -> Iterator[bytes]:
    """Yield the parts of the file to keep, neighbours merged."""
    start = end = scans = 0
    for marker, first, end in _segments(body, most):
        scans += marker == START_OF_SCAN
        if scans > MAX_SCANS:
            raise TooManyPieces(f"at most {MAX_SCANS} scans of a JPEG are accepted")
        if marker in DROPPED_SEGMENTS and not _is_kept(body, marker, first):
            yield body[start:first]
            yield _exif_segment(body[first:end]) if marker == EXIF_SEGMENT else b""
            start = end
    yield body[start:end]


def _exif_segment(segment: bytes) -> bytes:
    """Return an Exif segment of a JPEG with the orientation alone; nothing for another APP1 segment."""
    content = segment.lstrip(b"\xff")[3:]  # after the marker and the length
    if not content.startswith(PREFIX):
        return b""
    exif = PREFIX + orientation_alone(content)
    return b"\xff\xe1" + (2 + len(exif)).to_bytes(2, "big") + exif


def _segments(body: bytes, most: int) -> Iterator[tuple[int, int, int]]:
    """Yield marker, first and last position of each segment; what cannot be read is one segment to the file's end."""
    position = len(JPEG)
    for _ in range(most):
        found = _NEXT_MARKER.search(body, position)
        if found is None:
            break
        marker, after = body[found.end() - 1], found.end()
        if marker == END_OF_IMAGE:
            yield marker, found.start(), after
            return
        position = after + int.from_bytes(body[after : after + 2], "big")
        if position < after + 2 or position > len(body):
            break
        yield marker, found.start(), position
    else:
        raise TooManyPieces(f"at most {most} segments of a JPEG are accepted")
    yield 0, position, len(body)


def _is_kept(body: bytes, marker: int, first: int) -> bool:
    beginning = KEPT_SEGMENTS.get(marker)
    return beginning is not None and body[first : first + 20].lstrip(b"\xff")[3:].startswith(beginning)


def webp_size(body: bytes) -> tuple[int, int] | None:
    """Return width and height that a WebP claims to have, without opening it; None if the file has no such place.

    Opening a WebP takes memory for its whole canvas. https://developers.google.com/speed/webp/docs/riff_container
    """
    if len(body) < WEBP_SIZE_END or not body.startswith(RIFF) or body[8:12] != b"WEBP":
        return None
    kind = body[12:16]
    if kind == b"VP8X":
        return int.from_bytes(body[24:27], "little") + 1, int.from_bytes(body[27:30], "little") + 1
    if kind == b"VP8 " and body[23:26] == b"\x9d\x01\x2a":
        width, height = struct.unpack_from("<HH", body, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L" and body[20] == 0x2F:
        bits = int.from_bytes(body[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    return None


def _riff(body: bytes, most: int) -> Iterator[bytes]:
    """Yield the whole file, with the orientation alone in its EXIF chunks; their lengths stay.

    The decoder reads the other chunks in C.
    """
    start, position = 0, 12
    for _ in range(most):
        if position + _RIFF_CHUNK.size > len(body):
            yield body[start:]
            return
        name, length = _RIFF_CHUNK.unpack_from(body, position)
        first, end = position + _RIFF_CHUNK.size, position + _RIFF_CHUNK.size + length
        if name == b"EXIF" and end <= len(body):
            yield body[start:first]
            yield orientation_alone(body[first:end]).ljust(length, b"\x00")
            start = end
        position = end + length % 2
    raise TooManyPieces(f"at most {most} chunks of a WebP are accepted")

"""The structure of an encoded image, checked and reduced before anything decodes it.

Pillow walks through the pieces of a file (a PNG's chunks, a JPEG's segments) in Python, and inflates compressed
metadata: a small file of many pieces costs seconds. Here a walk over at most `most` pieces keeps those that decide the
pixels and drops the rest: profiles, texts, previews, animation, and whatever follows the image in the file.
"""

import re
import struct
from collections.abc import Iterator

PNG, JPEG, RIFF = b"\x89PNG\r\n\x1a\n", b"\xff\xd8", b"RIFF"
KEPT_CHUNKS = frozenset({b"IHDR", b"PLTE", b"tRNS", b"eXIf", b"IDAT", b"IEND"})
"""The PNG chunks that decide the pixels and their orientation."""
KEPT_SEGMENTS = {0xE0: b"JFIF\x00", 0xE1: b"Exif\x00", 0xEE: b"Adobe"}
"""The first bytes that an application segment of a JPEG must have to be kept, by its marker."""
DROPPED_SEGMENTS = frozenset({*range(0xE0, 0xF0), 0xFE})
"""Application segments and comments."""
START_OF_SCAN, END_OF_IMAGE = 0xDA, 0xD9
MAX_SCANS = 100
"""Scans of a JPEG, each a pass over the whole image; progressive files have about ten."""
_NEXT_MARKER = re.compile(rb"\xff+[^\x00\x01\xff\xd0-\xd7]")
"""The end of entropy-coded data: a marker that is no restart marker and no stuffed byte."""
_CHUNK = struct.Struct(">I4s")


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
    if body.startswith(PNG):
        kept = list(_png(body, most))
    elif body.startswith(JPEG):
        kept = list(_jpeg(body, most))
    else:
        if body.startswith(RIFF):
            _check_riff(body, most)
        return body
    whole = len(kept) == 1 and kept[0] == (0, len(body))
    return body if whole else b"".join([body[first:last] for first, last in kept])


def _png(body: bytes, most: int) -> Iterator[tuple[int, int]]:
    """Yield the spans of the file to keep, neighbours merged."""
    start, position = 0, len(PNG)
    for _ in range(most):
        if position + _CHUNK.size > len(body):
            yield start, len(body)
            return
        length, name = _CHUNK.unpack_from(body, position)
        end = position + _CHUNK.size + length + 4
        if name == b"IEND" or end > len(body):
            yield start, min(end, len(body))
            return
        if name not in KEPT_CHUNKS:
            yield start, position
            start = end
        position = end
    raise TooManyPieces(f"at most {most} chunks of a PNG are accepted")


def _jpeg(body: bytes, most: int) -> Iterator[tuple[int, int]]:
    """Yield the spans of the file to keep, neighbours merged."""
    start = end = scans = 0
    for marker, first, end in _segments(body, most):
        scans += marker == START_OF_SCAN
        if scans > MAX_SCANS:
            raise TooManyPieces(f"at most {MAX_SCANS} scans of a JPEG are accepted")
        if marker in DROPPED_SEGMENTS and not _is_kept(body, marker, first):
            yield start, first
            start = end
    yield start, end


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


def _check_riff(body: bytes, most: int) -> None:
    """Raise TooManyPieces for a WebP of too many chunks; the decoder reads them in C and needs no reduction."""
    position = 12
    for _ in range(most):
        if position + 8 > len(body):
            return
        length = int.from_bytes(body[position + 4 : position + 8], "little")
        position += 8 + length + length % 2
    raise TooManyPieces(f"at most {most} chunks of a WebP are accepted")

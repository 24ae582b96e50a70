"""The EXIF orientation of an image, without the rest of its EXIF data.

Pillow reads every entry in Python and copies whatever it points to, so that 64 KB of EXIF data hold the interpreter for
tens of milliseconds, and a megabyte for seconds. Here one entry is found and copied into new EXIF data.
"""

import struct

PREFIX = b"Exif\x00\x00"
"""What precedes the data in a JPEG, and in the files of some programs for other formats."""
TAG = 0x0112
BYTE_ORDERS = {b"II*\x00": "<", b"MM\x00*": ">"}
"""The first bytes of EXIF data, a TIFF file -> the sign of struct for its byte order."""
SIZES = {3: 2, 4: 4, 6: 1, 8: 2, 9: 4}
"""The types of TIFF entries that hold whole numbers -> bytes of a number."""
LENGTH = 26
"""Bytes of EXIF data with one entry: header, number of entries, entry, position of the next directory."""


def orientation_alone(exif: bytes) -> bytes:
    """Return EXIF data of LENGTH bytes with the orientation as their only entry, or without any entry.

    Data that cannot be read have no orientation. Data that are no longer than LENGTH come back as they are.
    """
    if len(exif) <= LENGTH:
        return exif
    data = exif.removeprefix(PREFIX)
    order = BYTE_ORDERS.get(data[:4], "<")
    entry = _entry(data, order) if data[:4] in BYTE_ORDERS else None
    head = struct.pack(order + "2sHIH", data[:2] if entry else b"II", 42, 8, 1 if entry else 0)
    return (head + (entry or b"")).ljust(LENGTH, b"\x00")


def _entry(data: bytes, order: str) -> bytes | None:
    """Return the twelve bytes of the first directory's orientation, None if it has none that is one whole number."""
    start = int.from_bytes(data[4:8], "little" if order == "<" else "big")
    count = int.from_bytes(data[start : start + 2], "little" if order == "<" else "big")
    entries = data[start + 2 : start + 2 + 12 * count]
    known = struct.iter_unpack(order + "HHI4s", entries[: len(entries) // 12 * 12])
    for tag, kind, numbers, value in known:
        if tag == TAG:
            is_number = kind in SIZES and numbers == 1
            return struct.pack(order + "HHI4s", tag, kind, numbers, value) if is_number else None
    return None

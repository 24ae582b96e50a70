"""Send thousands of mutated images to a service: `python -m tests.fuzz --seconds 600 --seed 1`.

Each must be answered with 200 or a documented refusal. Afterwards the service still answers, and its memory is flat.
"""

import argparse
import io
import random
import re
import struct
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

import httpx
import numpy as np
import psutil
from PIL import Image

from tests.service.pictures import png
from tests.service.processes import Service, running

ALLOWED = {200, 400, 422}
FLAT_BYTES = 32 * 2**20
"""The growth that the HTTP process may show after the first quarter: allocators keep this much, a leak exceeds it."""
PIECE = re.compile(rb"....(?:IHDR|PLTE|tRNS|eXIf|IDAT|fcTL|fdAT)|\xff[\xc0-\xfe]|VP8[ LX]|ANMF|EXIF", re.DOTALL)
"""The beginning of a piece of a file: a chunk of a PNG or WebP, a segment of a JPEG."""
MOST_REPEATED_BYTES = 2**21
TYPES = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}


def seeds() -> list[tuple[str, bytes]]:
    """Return content type and bytes of a picture in every encoding that the service decodes."""
    picture = Image.fromarray(np.random.default_rng(0).integers(0, 256, (48, 40, 3), np.uint8)).resize((96, 80))
    grey16 = Image.fromarray(np.arange(96 * 80, dtype=np.uint16).reshape(80, 96) * 8)
    exif = Image.Exif()
    exif[0x0112] = 6
    frames = {"save_all": True, "append_images": [picture.rotate(90), picture.rotate(180)]}
    flavours: list[tuple[Image.Image, str, dict[str, object]]] = [
        (picture, "PNG", {}),
        (picture.convert("RGBA"), "PNG", {}),
        (picture.quantize(), "PNG", {"transparency": 3}),
        (picture.convert("1"), "PNG", {}),
        (grey16, "PNG", {}),
        (picture, "PNG", {"exif": exif, **frames}),
        (picture, "JPEG", {"exif": exif}),
        (picture, "JPEG", {"progressive": True}),
        (picture.convert("CMYK"), "JPEG", {}),
        (picture.convert("L"), "JPEG", {"optimize": True, "restart_marker_blocks": 2}),
        (picture, "WEBP", {"exif": exif}),
        (picture.convert("RGBA"), "WEBP", {"lossless": True}),
        (picture, "WEBP", frames),
    ]
    return [(TYPES[kind], _saved(image, kind, options)) for image, kind, options in flavours]


def _saved(image: Image.Image, kind: str, options: dict[str, object]) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def mutants(seed: int) -> Iterator[tuple[str, bytes]]:
    """Yield content type and damaged bytes without end. The same seed gives the same mutants."""
    choose, originals = random.Random(seed), seeds()
    while True:
        content_type, original = choose.choice(originals)
        data = bytearray(original)
        for _ in range(choose.choice((1, 1, 2, 4, 16))):
            _damage(data, choose)
        yield content_type, _with_right_checksums(data) if choose.random() < 0.7 else bytes(data)


def _damage(data: bytearray, choose: random.Random) -> None:
    """Make one random change: a bit, a byte, a number, a cut, a copy, a removed part or a piece repeated many times."""
    at = choose.randrange(max(1, len(data)))
    size = choose.choice((1, 2, 4, 32, 500))
    match choose.randrange(8):
        case 0 if data:
            data[at % len(data)] ^= 1 << choose.randrange(8)
        case 1:
            data[at : at + 1] = choose.choice((b"\x00", b"\xff", b"\x7f", b"\x80"))
        case 2:
            number = choose.choice((0, 1, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, choose.getrandbits(32)))
            data[at : at + 4] = struct.pack(choose.choice("<>") + "I", number)
        case 3 if choose.random() < 0.2:
            del data[at:]
        case 4:
            data[at:at] = data[at : at + size]
        case 5:
            del data[at : at + size]
        case 6 if choose.random() < 0.1:
            _repeat(data, choose)
        case _:
            data[at : at + size] = choose.randbytes(size)


def _repeat(data: bytearray, choose: random.Random) -> None:
    """Repeat a piece of the file, or a small part of it, up to 100,000 times."""
    starts = [found.start() for found in PIECE.finditer(data)] or [0]
    first = choose.choice(starts)
    last = next((start for start in starts if start > first), len(data))
    piece = data[first : choose.choice((last, first + 4, first + 12))]
    count = min(choose.choice((100, 10_000, 100_000)), MOST_REPEATED_BYTES // max(1, len(piece)))
    data[first:first] = piece * count


def _with_right_checksums(data: bytearray) -> bytes:
    """Return a PNG whose chunks pass their CRC, so that the damage reaches the decoder; other data unchanged."""
    at = 8
    while data.startswith(b"\x89PNG") and at + 12 <= len(data):
        end = at + 8 + int.from_bytes(data[at : at + 4])
        if end + 4 > len(data):
            break
        data[end : end + 4] = zlib.crc32(data[at + 4 : end]).to_bytes(4)
        at = end + 4
    return bytes(data)


@dataclass(frozen=True)
class Outcome:
    """The count of each status, the first undocumented answers, the slowest answer, and the growth (see FLAT_BYTES)."""

    statuses: dict[int, int]
    bad: list[str]
    slowest_seconds: float
    grown_bytes: int


def fuzz(service: Service, seed: int, count: int | None = None, seconds: float = float("inf")) -> Outcome:
    """Send `count` mutants, or as many as `seconds` allow, and return the outcome."""
    process, began, statuses, bad = psutil.Process(service.process.pid), time.monotonic(), Counter[int](), list[str]()
    resident: list[int] = []
    slowest = 0.0
    for number, (content_type, body) in enumerate(mutants(seed)):
        if number == count or time.monotonic() - began > seconds:
            break
        sent = time.monotonic()
        answer = service.client.post("/predict/fp32", content=body, headers={"content-type": content_type})
        slowest = max(slowest, time.monotonic() - sent)
        statuses[answer.status_code] += 1
        if answer.status_code not in ALLOWED:
            bad.append(f"seed {seed}, mutant {number}: {answer.status_code} {answer.text[:200]}")
        if number % 100 == 0:
            resident.append(process.memory_info().rss)
    settled = max(resident[: max(1, len(resident) // 4)])
    return Outcome(dict(statuses), bad[:10], slowest, process.memory_info().rss - settled)


def still_answers(client: httpx.Client) -> bool:
    """Return whether a good image gets its right answer."""
    answer = client.post("/predict/fp32", content=png(3), headers={"content-type": "image/png"})
    return answer.status_code == 200 and answer.json()["predictions"][0]["class_index"] == 3


def main() -> None:
    """Fuzz a service with a fake engine, print the outcome, and exit with 1 if it is bad."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description="Send mutated images to a service.")
    parser.add_argument("--seconds", type=float, default=600, help="duration (default 600)")
    parser.add_argument("--seed", type=int, default=1, help="seed of the mutants (default 1)")
    given = parser.parse_args()
    with running("--variants", "fp32", "--log-level", "warning", module="tests.service.calm") as service:
        outcome = fuzz(service, given.seed, seconds=given.seconds)
        answers = still_answers(service.client)
    print(f"{sum(outcome.statuses.values())} mutants: {outcome.statuses}, slowest {outcome.slowest_seconds:.3f} s")
    print(f"grown by {outcome.grown_bytes / 2**20:.1f} MiB; still answers: {answers}")
    print(*outcome.bad, sep="\n")
    raise SystemExit(bool(outcome.bad) or not answers or outcome.grown_bytes > FLAT_BYTES)


if __name__ == "__main__":
    main()

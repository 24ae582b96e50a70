"""Images and clients that mean harm, or are merely broken, cost themselves an error and nobody else anything."""

import io
import socket
import struct
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import numpy as np
import pytest
from PIL import Image

from service import images
from service.errors import ServiceError
from tests import fuzz
from tests.service.pictures import encode, png, solid
from tests.service.processes import Service, running

LIMITS = images.Limits(max_images=8, max_pixels=1_000_000)
KINDS = ("PNG", "JPEG", "WEBP")


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    flags = ("--variants", "fp32", "--receive-timeout", "2", "--max-parts", "5", "--decode-timeout", "1.5")
    with running(*flags, module="tests.service.calm") as service:
        yield service


def picture(side: int = 64) -> np.ndarray:
    """`[3, side, side] uint8`, something to compress."""
    return np.random.default_rng(0).integers(0, 256, (3, side, side), np.uint8)


def word_of(body: bytes, limits: images.Limits = LIMITS) -> str:
    with pytest.raises(ServiceError) as raised:
        images.decode(body, limits)
    return raised.value.reason.word


@pytest.mark.parametrize("kind", ["GIF", "BMP", "TIFF", "PPM", "ICO", "TGA", "PCX", "JPEG2000", "PDF", "DDS", "ICNS"])
def test_no_other_decoder_can_be_reached(kind: str) -> None:
    """What Pillow could read, but is none of PNG, JPEG, WebP, is not an image here."""
    assert word_of(encode(picture(), kind)) == "not_an_image"


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("share", [0.01, 0.1, 0.5, 0.9])
def test_a_truncated_image_is_refused(kind: str, share: float) -> None:
    """No half picture is ever classified."""
    whole = encode(picture(), kind)
    assert word_of(whole[: int(len(whole) * share)]) == "not_an_image"


def test_a_corrupt_png_is_refused() -> None:
    """A flipped bit in the pixels fails the checksum."""
    body = bytearray(encode(picture()))
    body[len(body) // 2] ^= 1
    assert word_of(bytes(body)) == "not_an_image"


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    """APNG and animated WebP."""
    first, second = (Image.fromarray(solid(value).transpose(1, 2, 0)) for value in (40, 200))
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))
    assert np.abs(images.decode(buffer.getvalue(), LIMITS).astype(int) - 40).max() <= 1


def bomb(width: int, height: int) -> bytes:
    """A PNG that claims to be of this size and holds nothing else."""
    head = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk)) for chunk in (head, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


@pytest.mark.parametrize("size", [(1001, 1000), (20_000, 20_000), (2**31 - 1, 2**31 - 1), (1_000_001, 1)])
def test_a_decompression_bomb_is_refused_by_its_claim(size: tuple[int, int]) -> None:
    """No pixel of it is decoded: there is none."""
    assert word_of(bomb(*size)) == "unacceptable"


def test_a_jpeg_of_a_thousand_scans_is_refused() -> None:
    """Each scan is a pass over the image for a few bytes of the body."""
    body = encode(picture(), "JPEG", progressive=True)
    last = body.rindex(b"\xff\xda")
    assert word_of(body[:last] + body[last:-2] * 1000 + body[-2:]) == "unacceptable"
    images.decode(body, LIMITS)


def test_a_text_bomb_in_a_png_is_refused() -> None:
    """A compressed text chunk of 100 MB."""
    body = encode(picture())
    text = b"zTXtkey\0\0" + zlib.compress(bytes(100_000_000))
    chunk = struct.pack(">I", len(text) - 4) + text + struct.pack(">I", zlib.crc32(text))
    assert word_of(body[:33] + chunk + body[33:]) == "not_an_image"


def test_decoding_many_large_images_ends_in_time(service: Service) -> None:
    """5 images that each take a while are given up after `decode_timeout`, and others are answered meanwhile."""
    large = encode(solid(1, 4096))
    with ThreadPoolExecutor(1) as pool:
        parts = [("image", ("large.png", large))] * 5
        slow = pool.submit(httpx.post, service.url + "/predict/fp32", files=parts, timeout=30)
        began = time.monotonic()
        assert fuzz.still_answers(service.client)
        assert time.monotonic() - began < 1
        assert slow.result().status_code in (200, 504)


def test_decoding_stops_at_its_deadline() -> None:
    """Not one more image is begun after it."""
    late = images.Limits(max_images=8, max_pixels=1_000_000, until=time.perf_counter() - 1)
    assert word_of(png(1), late) == "deadline"


def test_the_parts_of_a_multipart_body_are_limited(service: Service) -> None:
    """More than `max_parts` files, or fields, are malformed."""
    files = [("image", ("x.png", png(1)))]
    assert service.client.post("/predict/fp32", files=files * 5).status_code == 200
    assert service.client.post("/predict/fp32", files=files * 6).status_code == 400
    fields = {f"field{number}": "x" for number in range(6)}
    assert service.client.post("/predict/fp32", files=files, data=fields).status_code == 400


def slowly(service: Service, first: bytes, then: bytes = b"x") -> tuple[bytes, float]:
    """Send `first`, then a byte now and again: all that comes back until the connection is closed, and when it was."""
    address = urlsplit(service.url)
    began = time.monotonic()
    received = b""
    with socket.create_connection((address.hostname, address.port), timeout=0.2) as connection:
        connection.sendall(first)
        while time.monotonic() - began < 20:
            try:
                if not (piece := connection.recv(65536)):
                    break
                received += piece
            except TimeoutError:
                connection.sendall(then)
            except ConnectionError:
                break
    return received, time.monotonic() - began


HEAD = b"POST /predict/fp32 HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


@pytest.mark.parametrize(
    ("first", "then"),
    [
        (HEAD + b"Content-Length: 1000\r\n\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ],
)
def test_a_body_that_trickles_in_is_cut_off(service: Service, first: bytes, then: bytes) -> None:
    """408, counted, and the connection is closed."""
    before = service.outcomes("fp32").get("too_slow", 0)
    received, seconds = slowly(service, first, then)
    assert received.startswith(b"HTTP/1.1 408 ")
    assert b"urn:precision-service:problem:too_slow" in received
    assert seconds < 6
    assert service.outcomes("fp32")["too_slow"] == before + 1


@pytest.mark.parametrize("first", [b"", b"GET /health/live HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX-Filler: "])
def test_a_head_that_trickles_in_is_cut_off(service: Service, first: bytes) -> None:
    """The connection is closed, though nothing was asked yet."""
    received, seconds = slowly(service, first)
    assert received == b"" or received.startswith(b"HTTP/1.1 400 ")
    assert seconds < 6


def test_a_body_that_trickles_in_after_its_answer_is_cut_off(service: Service) -> None:
    """An answered request (413) does not hold its connection either."""
    received, seconds = slowly(service, HEAD + b"Content-Length: 99999999\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 413 ")
    assert seconds < 6


def test_an_endless_head_is_cut_off(service: Service) -> None:
    """Headers of more than 64 KiB close the connection."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        try:
            connection.sendall(b"GET / HTTP/1.1\r\nX: " + b"x" * 10_000_000)
            assert connection.recv(100) == b""
        except ConnectionError:
            pass
    assert fuzz.still_answers(service.client)


@pytest.mark.slow
def test_mutated_images_leave_the_service_as_it_was(service: Service) -> None:
    """5000 mutants: only documented answers, memory flat, and the next good image is answered."""
    outcome = fuzz.fuzz(service, seed=1, count=5000, seconds=60)
    assert outcome.bad == []
    assert {200, 400, 422} == set(outcome.statuses)
    assert outcome.grown_bytes < fuzz.FLAT_BYTES
    assert fuzz.still_answers(service.client)

"""Images and clients that mean harm, or are merely broken, cost themselves an error and nobody else anything."""

import asyncio
import dataclasses
import io
import resource
import socket
import struct
import tempfile
import threading
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import numpy as np
import psutil
import pytest
from PIL import Image
from starlette.datastructures import Headers

from service import bodies, images
from service.deadline import Deadline
from service.errors import ServiceError
from service.settings import Settings
from tests import fuzz
from tests.service.pictures import encode, png, solid
from tests.service.processes import Service, running, until

LIMITS = images.Limits(max_images=8, max_pixels=1_000_000)
KINDS = ("PNG", "JPEG", "WEBP")
PNG = {"content-type": "image/png"}


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


@pytest.mark.parametrize(("kind", "start"), [("JPEG", b"\xff\xc4"), ("JPEG", b"\xff\xdb"), ("WEBP", b"VP8 ")])
def test_a_corrupt_header_is_refused(kind: str, start: bytes) -> None:
    """A JPEG's tables, a WebP's frame."""
    body = bytearray(encode(picture(), kind))
    at = body.index(start) + 4
    body[at : at + 16] = b"\xff" * 16
    assert word_of(bytes(body)) == "not_an_image"


@pytest.mark.parametrize("kind", ["JPEG", "WEBP"])
def test_corrupt_pixels_without_a_checksum_are_taken_as_they_look(kind: str) -> None:
    """As docs/api.md says: no decoder can tell."""
    body = bytearray(encode(picture(32), kind))
    body[len(body) * 3 // 4] ^= 0x55  # behind all tables
    assert (images.decode(bytes(body), LIMITS) != images.decode(encode(picture(32), kind), LIMITS)).any()


def test_a_picture_that_ends_in_order_is_taken_as_it_looks() -> None:
    """As docs/api.md says: a PNG of too few rows whose checksums are right, a JPEG that was cut and given an end."""
    half = images.decode(png_of(32, 32, zlib.compress(b"".join(b"\0" + bytes([9] * 96) for _ in range(16)))), LIMITS)
    assert (half[:, :16] == 9).all()
    assert (half[:, 16:] == 0).all()
    cut = encode(picture(32), "JPEG")
    assert images.decode(cut[: len(cut) * 3 // 4] + b"\xff\xd9", LIMITS).shape == (3, 32, 32)


@pytest.mark.parametrize("kind", ["PNG", "WEBP"])
def test_of_an_animation_the_first_frame_counts(kind: str) -> None:
    """APNG and animated WebP."""
    first, second = (Image.fromarray(solid(value).transpose(1, 2, 0)) for value in (40, 200))
    buffer = io.BytesIO()
    first.save(buffer, kind, save_all=True, append_images=[second], **({"lossless": True} if kind == "WEBP" else {}))
    assert np.abs(images.decode(buffer.getvalue(), LIMITS).astype(int) - 40).max() <= 1


def test_of_a_jpeg_with_several_pictures_the_first_counts() -> None:
    """What cameras write as MPO."""
    first, second = (Image.fromarray(solid(value).transpose(1, 2, 0)) for value in (40, 200))
    buffer = io.BytesIO()
    first.save(buffer, "MPO", save_all=True, append_images=[second])
    assert np.abs(images.decode(buffer.getvalue(), LIMITS).astype(int) - 40).max() <= 1


def chunk(kind: bytes, data: bytes) -> bytes:
    """One of a PNG, with its length and checksum."""
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_of(width: int, height: int, compressed: bytes, bits: int = 8) -> bytes:
    """An RGB PNG that claims to be of this size and holds this data."""
    head = struct.pack(">IIBBBBB", width, height, bits, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", compressed) + chunk(b"IEND", b"")


def jpeg_of(width: int, height: int) -> bytes:
    """A small JPEG that claims to be of this size."""
    body = encode(picture(), "JPEG")
    at = body.index(b"\xff\xc0") + 5
    return body[:at] + struct.pack(">HH", height, width) + body[at + 4 :]


def webp_of(width: int, height: int) -> bytes:
    """A small frame on a canvas that claims to be of this size."""
    frame = encode(picture(16), "WEBP")[12:]
    places = struct.pack("<IIIII", 0, 0, 15, 15, 100)
    place = b"".join(places[at : at + 3] for at in range(0, 20, 4)) + b"\0"
    canvas = bytes([2, 0, 0, 0]) + struct.pack("<I", width - 1)[:3] + struct.pack("<I", height - 1)[:3]
    parts = ((b"VP8X", canvas), (b"ANIM", bytes(6)), (b"ANMF", place + frame))
    body = b"WEBP" + b"".join(kind + struct.pack("<I", len(data)) + data for kind, data in parts)
    return b"RIFF" + struct.pack("<I", len(body)) + body


def test_16_bits_of_colour_are_scaled_too() -> None:
    """An RGB PNG of v * 257 is the 8-bit picture of v."""
    pixels = picture(32)
    wide = pixels.transpose(1, 2, 0).astype(">u2") * 257
    rows = b"".join(b"\0" + row.tobytes() for row in wide)
    assert (images.decode(png_of(32, 32, zlib.compress(rows), bits=16), LIMITS) == pixels).all()


@pytest.mark.parametrize(
    "body",
    [
        png_of(1001, 1000, zlib.compress(b"")),
        png_of(20_000, 20_000, zlib.compress(b"")),
        png_of(2**31 - 1, 2**31 - 1, zlib.compress(b"")),
        png_of(1_000_001, 1, zlib.compress(b"")),
        jpeg_of(1001, 1000),
        jpeg_of(65_500, 65_500),
        webp_of(1001, 1000),
        webp_of(16_384, 16_384),
    ],
    ids=len,
)
def test_a_decompression_bomb_is_refused_by_its_claim(body: bytes) -> None:
    """Before a pixel is decoded: no memory for any is touched."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert word_of(body) == "unacceptable"
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2048  # KiB


def test_what_claims_no_more_than_is_accepted_is_read() -> None:
    """The bombs above are sound otherwise."""
    assert images.decode(webp_of(1000, 1000), LIMITS).shape == (3, 32, 32)
    assert images.decode(jpeg_of(64, 64), LIMITS).shape == (3, 32, 32)


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


@pytest.mark.parametrize(
    ("kind", "start"), [(b"iCCP", b"name\0\0"), (b"zTXt", b"key\0\0"), (b"iTXt", b"key\0\1\0\0\0")]
)
def test_a_png_with_a_thousand_small_text_bombs_is_refused(kind: bytes, start: bytes) -> None:
    """Each would be inflated to 1 MiB when the image is opened; a few are a matter for a thread."""
    body = encode(picture())
    metadata = chunk(kind, start + zlib.compress(bytes(2**20 - 1)))
    assert word_of(body[:33] + metadata * 1000 + body[33:]) == "unacceptable"
    some = body[:33] + metadata * 5 + body[33:]
    assert (images.decode(some, LIMITS) == images.decode(body, LIMITS)).all()
    with pytest.raises(images.Heavy):
        images.decode(some, dataclasses.replace(LIMITS, light=True))


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


def test_a_decoder_that_does_not_end_is_not_waited_for() -> None:
    """The request ends as `deadline`, whatever its thread does."""
    done = threading.Event()

    async def wait_for_it() -> None:
        try:
            patient = Deadline(time.perf_counter(), 60)
            await bodies.timely(lambda _: done.wait(60), bodies.THREAD_BYTES, Settings(decode_timeout=0.05), patient)
        finally:
            done.set()

    with pytest.raises(ServiceError) as raised:
        asyncio.run(wait_for_it())
    assert raised.value.reason.word == "deadline"


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


@pytest.mark.parametrize(
    ("images", "status"), [("1", 400), ('""', 422), ('"!"', 422)], ids=["no strings", "empty", "no base64"]
)
def test_a_json_body_of_a_million_images_is_refused_at_once(service: Service, images: str, status: int) -> None:
    """A few kilobytes once compressed: nothing is made of each image, and others are answered meanwhile."""
    body = zlib.compress(b'{"images": [' + b",".join([images.encode()] * 1_000_000) + b"]}")
    headers = {"content-type": "application/json", "content-encoding": "deflate"}
    process = psutil.Process(service.process.pid)
    service.client.post("/predict/fp32", content=body, headers=headers)
    before = process.memory_info().rss
    answer = service.client.post("/predict/fp32", content=body, headers=headers)
    assert answer.status_code == status
    assert len(answer.content) < 1000
    assert process.memory_info().rss - before < 64 * 2**20
    assert fuzz.still_answers(service.client)


def test_a_json_body_of_a_million_unknown_keys_is_refused_at_once(service: Service) -> None:
    """They are counted, not described."""
    body = b"{" + b",".join(b'"%d": 1' % number for number in range(500_000)) + b"}"
    answer = service.client.post("/predict/fp32", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "500000 mistakes" in answer.json()["detail"]


def test_bodies_that_arrive_side_by_side_are_bounded() -> None:
    """Past `max_held_bytes` a request is refused, whoever holds them; what is given up makes room again."""
    flags = ("--variants", "fp32", "--max-body-bytes", "200000", "--max-held-bytes", "300000")
    stalled = HEAD + b"Content-Length: 150000\r\n\r\n" + bytes(149_999)
    with running(*flags, module="tests.service.calm") as service:
        address = urlsplit(service.url)
        padded = png(3) + bytes(10_000)
        refused = lambda: service.client.post("/predict/fp32", content=padded, headers=PNG).status_code == 503  # noqa: E731
        with (
            socket.create_connection((address.hostname, address.port)) as one,
            socket.create_connection((address.hostname, address.port)) as other,
        ):
            one.sendall(stalled)
            other.sendall(stalled)
            until(refused, 20, "refusal")
        until(lambda: not refused(), 20, "room")
        assert service.outcomes("fp32")["overloaded"] >= 1


def test_a_large_part_of_a_multipart_body_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """No file is written, so that none can be missing: the body is in memory already."""
    request = httpx.Request("POST", "http://x", files=[("image", ("x.png", bytes(3_000_000)))])
    written = []
    monkeypatch.setattr(tempfile.SpooledTemporaryFile, "rollover", written.append)
    deadline = Deadline(time.perf_counter(), 60)
    parts = asyncio.run(bodies.encoded_parts(Headers(dict(request.headers)), request.read(), Settings(), deadline))
    assert parts == [bytes(3_000_000)]
    assert written == []


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


@pytest.mark.parametrize(
    ("first", "status"),
    [
        (b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", b"200"),
        (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"404"),
    ],
    ids=["line ends", "rest of a body"],
)
def test_bytes_that_begin_no_request_keep_no_connection(service: Service, first: bytes, status: bytes) -> None:
    """What comes after an answer stops uvicorn's timer, which starts again."""
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(first)
        assert connection.recv(65536).startswith(b"HTTP/1.1 " + status)
        connection.sendall(b"\r\n" if status == b"200" else bytes(100_000))
        while connection.recv(65536):  # TimeoutError: nobody closes it
            pass


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


@pytest.mark.parametrize("first", [b"X: " + b"x" * 998 + b"\r\n", b"X: "])
def test_an_endless_tail_is_cut_off(service: Service, first: bytes) -> None:
    """Nor may headers follow a chunked body without end, in many lines or in one: memory stays flat."""
    address = urlsplit(service.url)
    process = psutil.Process(service.process.pid)
    before = process.memory_info().rss
    with socket.create_connection((address.hostname, address.port), timeout=5) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n1\r\nx\r\n0\r\n")
        with pytest.raises(ConnectionError):
            connection.sendall(first * 50_000 if first.endswith(b"\n") else first + b"x" * 50_000_000)
    assert process.memory_info().rss - before < 16 * 2**20
    assert fuzz.still_answers(service.client)


def test_small_chunks_are_no_endless_tail(service: Service) -> None:
    """What stands between chunks counts anew for each."""
    padded = png(3) + bytes(300_000)  # what follows a PNG's end does not matter
    pieces = b"".join(
        b"%x\r\n%b\r\n" % (len(padded[at : at + 20]), padded[at : at + 20]) for at in range(0, len(padded), 20)
    )
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_is_cut_off(service: Service) -> None:
    """What it asked for is not kept for it for ever."""
    address = urlsplit(service.url)
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect((address.hostname, address.port))
        connection.sendall(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: x\r\n\r\n" * 10)
        ours = connection.getsockname()[1]
        process = psutil.Process(service.process.pid)
        until(lambda: ours in _clients(process), 5, "connection")
        until(lambda: ours not in _clients(process), 20, "end of the connection")


def _clients(process: psutil.Process) -> set[int]:
    """The ports at the other end of a process's connections."""
    return {connection.raddr.port for connection in process.net_connections("tcp") if connection.raddr}


@pytest.mark.slow
def test_mutated_images_leave_the_service_as_it_was(service: Service) -> None:
    """5000 mutants: only documented answers, memory flat, and the next good image is answered."""
    outcome = fuzz.fuzz(service, seed=1, count=5000, seconds=200)  # 15 s, unless the machine is busy
    assert outcome.bad == []
    assert {200, 400, 422} == set(outcome.statuses)
    assert outcome.grown_bytes < fuzz.FLAT_BYTES
    assert fuzz.still_answers(service.client)

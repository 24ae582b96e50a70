"""Bodies and clients that mean harm, or are merely broken, cost themselves an error and nobody else anything."""

import socket
import time
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from tests import fuzz
from tests.service.pictures import encode, png, solid
from tests.service.processes import Service, running, until

PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    flags = ("--variants", "fp32", "--receive-timeout", "2", "--max-parts", "5", "--decode-timeout", "1.5")
    with running(*flags, module="tests.service.calm") as service:
        yield service


def test_decoding_many_large_images_ends_in_time(service: Service) -> None:
    """While 5 large images are decoded, others are answered; past `decode_timeout` their decoder is ended."""
    large = encode(solid(1, 4096))
    with ThreadPoolExecutor(1) as pool:
        parts = [("image", ("large.png", large))] * 5
        slow = pool.submit(httpx.post, service.url + "/predict/fp32", files=parts, timeout=30)
        assert fuzz.still_answers(service.client)
        assert not slow.done()
        assert slow.result().status_code in (200, 504)  # a fast machine decodes them in time


def test_the_parts_of_a_multipart_body_are_limited(service: Service) -> None:
    """A body with more than `max_parts` files, or fields, is malformed."""
    files = [("image", ("x.png", png(1)))]
    assert service.client.post("/predict/fp32", files=files * 5).status_code == 200
    assert service.client.post("/predict/fp32", files=files * 6).status_code == 400
    fields = {f"field{number}": "x" for number in range(6)}
    assert service.client.post("/predict/fp32", files=files, data=fields).status_code == 400


def slowly(service: Service, first: bytes, then: bytes = b"x") -> tuple[bytes, float]:
    """Send `first`, then `then` every 0.2 s until the connection is closed; return what came back, and the seconds."""
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


@pytest.mark.parametrize("images", ["1", '""', "{}", "[]"], ids=["no strings", "empty", "objects", "lists"])
def test_a_json_body_of_a_million_images_is_refused_at_once(service: Service, images: str) -> None:
    """The body has a few compressed kilobytes. No object is made of any image, so memory stays flat."""
    body = zlib.compress(b'{"images": [' + b",".join([images.encode()] * 1_000_000) + b"]}")
    headers = {"content-type": "application/json", "content-encoding": "deflate"}
    process = psutil.Process(service.process.pid)
    service.client.post("/predict/fp32", content=body, headers=headers)
    before = process.memory_info().rss
    answer = service.client.post("/predict/fp32", content=body, headers=headers)
    assert answer.status_code == 400
    assert len(answer.content) < 1000
    assert process.memory_info().rss - before < 64 * 2**20
    assert fuzz.still_answers(service.client)


def test_a_json_body_of_a_million_unknown_keys_is_refused_at_once(service: Service) -> None:
    """The error gives the number of values and describes none."""
    body = b"{" + b",".join(b'"%d": 1' % number for number in range(500_000)) + b"}"
    answer = service.client.post("/predict/fp32", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 400
    assert "the JSON has 500000 values" in answer.json()["detail"]


def test_bodies_that_arrive_side_by_side_are_bounded() -> None:
    """Silent uploads leave no room for large bodies until they end, and always room for small ones."""
    flags = ("--variants", "fp32", "--max-body-bytes", "200000", "--max-held-bytes", "400000")
    stalled = HEAD + b"Content-Length: 150000\r\n\r\n" + bytes(149_999)
    with running(*flags, module="tests.service.calm") as service:
        address = urlsplit(service.url)
        padded = png(3) + bytes(70_000)

        def is_refused() -> bool:
            return service.client.post("/predict/fp32", content=padded, headers=PNG).status_code == 503

        def is_refused_beside_one_more() -> bool:
            connection = uploads.enter_context(socket.create_connection((address.hostname, address.port)))
            connection.sendall(stalled)
            return is_refused()

        with ExitStack() as uploads:
            until(is_refused_beside_one_more, 20, "refusal")
            assert fuzz.still_answers(service.client)
        until(lambda: not is_refused(), 20, "room")
        assert service.outcomes("fp32")["overloaded"] >= 1


HEAD = b"POST /predict/fp32 HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


def test_a_body_that_trickles_in_is_cut_off(service: Service) -> None:
    """With a length or in chunks, the answer is 408, it is counted, and the connection is closed."""
    before = service.outcomes("fp32")
    bodies = [
        (HEAD + b"Content-Length: 1000\r\n\r\n", b"x"),
        (HEAD + b"Transfer-Encoding: chunked\r\n\r\n", b"1\r\nx\r\n"),
    ]
    with ThreadPoolExecutor(len(bodies)) as pool:
        for received, seconds in pool.map(lambda body: slowly(service, *body), bodies):
            assert received.startswith(b"HTTP/1.1 408 ")
            assert b"urn:precision-service:problem:too_slow" in received
            assert seconds < 6
    assert service.outcomes("fp32", since=before) == {"too_slow": 2}


def test_a_head_that_trickles_in_is_cut_off(service: Service) -> None:
    """The connection is closed before any request is complete, wherever in its head it is."""
    heads = [b"", b"GET /health/live HTTP/1.1\r\n", b"GET / HTTP/1.1\r\nHost: x\r\nX-Filler: "]
    with ThreadPoolExecutor(len(heads)) as pool:
        for received, seconds in pool.map(lambda head: slowly(service, head), heads):
            assert received == b"" or received.startswith(b"HTTP/1.1 400 ")
            assert seconds < 6


def test_a_body_that_trickles_in_after_its_answer_is_cut_off(service: Service) -> None:
    """A request that is answered early (413) does not keep its connection open either."""
    received, seconds = slowly(service, HEAD + b"Content-Length: 99999999\r\n\r\n")
    assert received.startswith(b"HTTP/1.1 413 ")
    assert seconds < 6


def test_bytes_that_begin_no_request_keep_no_connection(service: Service) -> None:
    """Bytes after an answer stop uvicorn's keep-alive timer; the service starts it again and closes the connection.

    The bytes are line ends, and the rest of a body that was refused. Both connections wait out the timer together.
    """
    address = urlsplit(service.url)
    with ExitStack() as connections:
        opened = []
        for first, status, then in (
            (b"GET /health/live HTTP/1.1\r\nHost: x\r\n\r\n", b"200", b"\r\n"),
            (b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 100000\r\n\r\n", b"404", bytes(100_000)),
        ):
            connection = socket.create_connection((address.hostname, address.port), timeout=20)
            opened.append(connections.enter_context(connection))
            connection.sendall(first)
            assert connection.recv(65536).startswith(b"HTTP/1.1 " + status)
            connection.sendall(then)
        for connection in opened:
            while connection.recv(65536):  # raises TimeoutError if nobody closes the connection
                pass


def test_an_endless_head_is_cut_off(service: Service) -> None:
    """Headers of more than 64 KiB close the connection: the client sees its end, or a reset if it still sends."""
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
    """Endless headers after a chunked body, in many lines or in one, close the connection; memory stays flat."""
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
    """The limit counts the bytes between two chunks, not those of all chunks together."""
    padded = png(3) + bytes(300_000)  # decoders ignore what follows a PNG's end
    pieces = b"".join(
        b"%x\r\n%b\r\n" % (len(padded[at : at + 20]), padded[at : at + 20]) for at in range(0, len(padded), 20)
    )
    address = urlsplit(service.url)
    with socket.create_connection((address.hostname, address.port), timeout=20) as connection:
        connection.sendall(HEAD + b"Transfer-Encoding: chunked\r\n\r\n" + pieces + b"0\r\n\r\n")
        assert connection.recv(100).startswith(b"HTTP/1.1 200 ")


def test_a_client_that_does_not_read_is_cut_off(service: Service) -> None:
    """A client that takes no answer loses its connection, so no answer is kept for it for ever."""
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
    """Return the remote ports of a process's connections."""
    return {connection.raddr.port for connection in process.net_connections("tcp") if connection.raddr}


@pytest.mark.slow
def test_mutated_images_leave_the_service_as_it_was(service: Service) -> None:
    """5000 mutants get only documented answers, memory stays flat, and the next good image is answered."""
    outcome = fuzz.fuzz(service, seed=1, count=5000, seconds=200)  # 20 s, unless the machine is busy
    assert outcome.bad == []
    assert {200, 400, 422} == set(outcome.statuses)
    assert outcome.grown_bytes < fuzz.FLAT_BYTES
    assert fuzz.still_answers(service.client)

"""Heads of HTTP requests: upgrades that are not taken, white space, codings, Host, and requests in one packet."""

import socket
from urllib.parse import urlsplit

import pytest

from tests.service import fakes
from tests.service.pictures import png
from tests.service.processes import Service

HEAD = b"POST /predict/fp32 HTTP/1.1\r\nHost: localhost\r\nContent-Type: image/png\r\n"
LIVE = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\n\r\n"
LAST = b"GET /health/live HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"


@pytest.fixture(scope="module")
def service(shared_fakes: Service) -> Service:
    """Return the service with fake engines that several files share."""
    return shared_fakes


def connected(service: Service) -> socket.socket:
    address = urlsplit(service.url)
    return socket.create_connection((address.hostname, address.port), timeout=20)


def statuses(connection: socket.socket) -> list[int]:
    """Return the status of each answer until the connection ends."""
    received = b""
    while piece := connection.recv(65536):
        received += piece
    return [int(answer[:3]) for answer in received.split(b"HTTP/1.1 ")[1:]]


def answers(service: Service, *packets: bytes) -> list[int]:
    """Send the packets, each after an answer to the one before; return the status of each answer."""
    received: list[int] = []
    with connected(service) as connection:
        for packet in packets[:-1]:
            connection.sendall(packet)
            received.append(int(connection.recv(65536)[9:12]))
        connection.sendall(packets[-1])
        return received + statuses(connection)


def post(body: bytes, *headers: bytes) -> bytes:
    lines = b"".join(header + b"\r\n" for header in headers)
    return HEAD + lines + b"Content-Length: %d\r\n\r\n" % len(body) + body


UPGRADES = [
    (b"Connection: Upgrade, HTTP2-Settings", b"Upgrade: h2c", b"HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"),
    (b"Connection: Upgrade", b"Upgrade: websocket", b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="),
    (b"Upgrade: gopher/7, TLS/1.0", b"Connection: keep-alive, upgrade"),
]


@pytest.mark.parametrize("headers", UPGRADES, ids=["h2c", "websocket", "unknown"])
def test_an_upgrade_is_ignored(service: Service, headers: tuple[bytes, ...]) -> None:
    """A request that asks for another protocol is answered as HTTP/1.1, and so is the next one on its connection."""
    asking = post(png(3), *headers)
    assert answers(service, asking, LAST) == [200, 200]
    assert answers(service, asking + asking + LAST) == [200, 200, 200]


@pytest.mark.parametrize("headers", UPGRADES, ids=["h2c", "websocket", "unknown"])
def test_the_body_after_an_upgrade_may_come_later(service: Service, headers: tuple[bytes, ...]) -> None:
    """A body in pieces after such a head belongs to its request, with a length or in chunks."""
    lines = b"\r\n".join(headers) + b"\r\nExpect: 100-continue\r\n"
    body = png(3)
    chunks = b"5\r\n%b\r\n%x\r\n%b\r\n0\r\n\r\n" % (body[:5], len(body) - 5, body[5:])
    for framing, pieces in ((b"Content-Length: %d" % len(body), body), (b"Transfer-Encoding: chunked", chunks)):
        with connected(service) as connection:
            connection.sendall(HEAD + lines + framing + b"\r\n\r\n")
            assert connection.recv(100) == b"HTTP/1.1 100 Continue\r\n\r\n"
            connection.sendall(pieces[:20])
            connection.sendall(pieces[20:] + LAST)
            assert statuses(connection) == [200, 200]


def test_an_upgrade_without_a_body_is_ignored(service: Service) -> None:
    """A head that is cut anywhere into two packets is answered, and the request behind it."""
    asking = LIVE[:-2] + b"Connection: Upgrade\r\nUpgrade: websocket\r\n\r\n"
    for cut in (1, 40, len(asking) - 1, len(asking)):
        with connected(service) as connection:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connection.sendall(asking[:cut])
            connection.sendall(asking[cut:] + LAST)
            assert statuses(connection) == [200, 200]


@pytest.mark.parametrize("header", [b"X-Request-Timeout: 5 ", b"X-Request-Timeout:\t5\t "])
def test_white_space_after_a_value_is_no_part_of_it(service: Service, header: bytes) -> None:
    """Spaces and tabs after a header's value are trimmed."""
    assert answers(service, post(png(3), header), LAST) == [200, 200]


@pytest.mark.parametrize(
    "coding", [b"gzip, chunked", b"gzip", b"chunked, chunked", b"identity", b"chunked\r\nTransfer-Encoding: gzip"]
)
def test_a_coding_other_than_chunked_is_refused(service: Service, coding: bytes) -> None:
    """The answer is one 400, and the connection ends: nobody else may see a request in the rest."""
    assert answers(service, HEAD + b"Transfer-Encoding: " + coding + b"\r\n\r\n0\r\n\r\n" + LIVE) == [400]


@pytest.mark.parametrize("hosts", [b"", b"Host: localhost\r\nHost: localhost\r\n"], ids=["none", "two"])
def test_a_request_has_one_host(service: Service, hosts: bytes) -> None:
    """HTTP/1.1 without exactly one Host is a 400; HTTP/1.0 may leave it out."""
    assert answers(service, b"GET /health/live HTTP/1.1\r\n" + hosts + b"\r\n") == [400]
    assert answers(service, b"GET /health/live HTTP/1.0\r\n\r\n") == [200]


def test_a_tunnel_is_refused(service: Service) -> None:
    """CONNECT gets a 400."""
    assert answers(service, b"CONNECT localhost:80 HTTP/1.1\r\nHost: localhost:80\r\n\r\n") == [400]


@pytest.mark.parametrize(
    "broken",
    [b"NONSENSE\r\n\r\n", b"GET / HTTP/1.1\r\n\r\n", HEAD + b"Transfer-Encoding: chunked\r\n\r\nno length\r\n"],
    ids=["no request", "no Host", "bad chunk"],
)
def test_a_broken_request_leaves_earlier_ones_their_answers(service: Service, broken: bytes) -> None:
    """Requests in one packet before a malformed one are answered first, in their order; those after it are not."""
    stalled, good = post(png(fakes.STALL)), post(png(3))
    assert answers(service, stalled + good + broken + LIVE) == [200, 200, 400]


@pytest.mark.parametrize(
    ("chunks", "size", "expected"),
    [(9 * 1024, 1, [200]), (12 * 1024, 64, [200]), (10_680, 1, [400])],
    ids=["few small", "many", "many small"],
)
def test_a_body_of_many_small_chunks_is_refused(service: Service, chunks: int, size: int, expected: list[int]) -> None:
    """A body may have thousands of chunks of one byte, and any number of larger ones, but not many small ones."""
    head = HEAD.replace(b"image/png", b"application/octet-stream")
    body = b"%x\r\n%b\r\n" % (size, bytes(size)) * chunks
    packet = head + b"Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n" + body + b"0\r\n\r\n"
    assert answers(service, packet) == expected

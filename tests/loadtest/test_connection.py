"""The load test's connection, against servers that answer with given bytes."""

import gc
import ssl
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from socket import create_server, socket

import pytest
from gevent import Timeout

from loadtest.client.answers import record
from loadtest.client.connection import Answer, Connection, HTTPConnectionClosed, HTTPParseError, head
from tests.certificates import self_signed

GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"
REQUEST = head("GET", "http://x/", ()) + b"\r\n"


@dataclass
class Server:
    """What a scripted server has seen."""

    port: int
    requests: list[int] = field(default_factory=list)
    """The number of the connection of each request."""
    closed: threading.Semaphore = field(default_factory=lambda: threading.Semaphore(0))
    """Released for each connection that the server has closed."""
    over: threading.Event = field(default_factory=threading.Event)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"


@contextmanager
def serving(*connections: Sequence[bytes | None]) -> Iterator[Server]:
    """Answer the requests of each connection with these bytes, then close it. None stands for silence to the end."""

    def talk() -> None:
        for number, answers in enumerate(connections):
            with listener.accept()[0] as accepted:
                for answer in answers:
                    if not _read_head(accepted):
                        break
                    server.requests.append(number)
                    accepted.sendall(answer or b"")
                    if answer is None:
                        server.over.wait(10)
            server.closed.release()

    with create_server(("127.0.0.1", 0)) as listener:
        server = Server(listener.getsockname()[1])
        thread = threading.Thread(target=talk)
        thread.start()
        yield server
        server.over.set()
        thread.join(10)


def _read_head(accepted: socket) -> bytes:
    read = b""
    while not read.endswith(b"\r\n\r\n"):
        if not (piece := accepted.recv(4096)):
            return b""
        read += piece
    return read


@contextmanager
def connected(url: str, timeout: float = 5.0) -> Iterator[Connection]:
    connection = Connection(url, timeout)
    yield connection
    connection.close()


def only(answer: bytes | None, timeout: float = 5.0) -> Answer:
    """Return what comes of one request that the server answers so."""
    with serving([answer]) as server, connected(server.url, timeout) as connection:
        return connection.exchange(REQUEST)


def test_requests_share_a_connection() -> None:
    """The second request takes the connection of the first."""
    with serving([GOOD, GOOD]) as server, connected(server.url) as connection:
        answers = [connection.exchange(REQUEST) for _ in range(2)]
    assert [(answer.status, answer.content, answer.failure) for answer in answers] == [(200, b"hello", None)] * 2
    assert server.requests == [0, 0]


@pytest.mark.parametrize(
    "answer",
    [
        GOOD,
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhe\r\n3\r\nllo\r\n0\r\n\r\n",
        b"HTTP/1.0 200 OK\r\n\r\nhello",
        b"HTTP/1.1 100 Continue\r\n\r\n" + GOOD,
        GOOD + b"HTTP/1.1 500 Nobody asked\r\n\r\n",
    ],
    ids=["length", "chunks", "to the end", "after 100", "with more behind it"],
)
def test_bodies_end_as_http_says(answer: bytes) -> None:
    """The body is whole however its end is marked."""
    found = only(answer)
    assert (found.status, found.content, found.failure) == (200, b"hello", None)


@pytest.mark.parametrize(
    "first",
    [
        GOOD.replace(b"\r\n", b"\r\nConnection: close\r\n", 1),
        GOOD + b"HTTP/1.1 500 Nobody asked\r\n\r\n",
        GOOD,
    ],
    ids=["asked to close", "more behind the answer", "closed while idle"],
)
def test_a_connection_that_is_done_is_replaced(first: bytes) -> None:
    """The next request takes a new connection and gets its answer."""
    with serving([first], [GOOD]) as server, connected(server.url) as connection:
        connection.exchange(REQUEST)
        server.closed.acquire(timeout=10)
        answer = connection.exchange(REQUEST)
    assert (answer.status, answer.failure, server.requests) == (200, None, [0, 1])


def test_a_request_is_sent_once() -> None:
    """A service that closes a used connection instead of answering may have computed; the failure is reported."""
    with serving([GOOD, b""], [GOOD]) as server, connected(server.url) as connection:
        connection.exchange(REQUEST)
        failed, after = connection.exchange(REQUEST), connection.exchange(REQUEST)
    assert isinstance(failed.failure, HTTPConnectionClosed)
    assert (failed.status, after.status, server.requests) == (0, 200, [0, 0, 1])


def test_a_body_that_breaks_off_is_no_answer() -> None:
    """The connection closes before the stated length: the status is 200, and the request failed."""
    answer = only(GOOD[:-1])
    assert (answer.status, type(answer.failure)) == (200, HTTPConnectionClosed)


def test_an_answer_that_is_not_http() -> None:
    """Other bytes are a failure of their own."""
    assert isinstance(only(b"SSH-2.0-OpenSSH_9.2\r\n").failure, HTTPParseError)


def test_the_whole_request_has_a_deadline() -> None:
    """Silence ends with a timeout, also in a handshake."""
    answer = only(None, timeout=0.1)
    assert isinstance(answer.failure, Timeout)
    with serving([None]) as server, connected(server.url.replace("http", "https"), timeout=0.5) as connection:
        assert isinstance(connection.exchange(REQUEST).failure, Timeout)
    assert answer.end - answer.start >= 0.1


def test_an_unknown_certificate_is_refused(tmp_path: Path) -> None:
    """The handshake fails, and no request is sent."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*self_signed(tmp_path))
    with create_server(("127.0.0.1", 0)) as listener:

        def shake() -> None:
            with listener.accept()[0] as accepted, pytest.raises(ssl.SSLError, match="unknown ca"):
                context.wrap_socket(accepted, server_side=True)

        thread = threading.Thread(target=shake)
        thread.start()
        with connected(f"https://127.0.0.1:{listener.getsockname()[1]}") as connection:
            answer = connection.exchange(REQUEST)
        thread.join(10)
    assert isinstance(answer.failure, ssl.SSLCertVerificationError)


def test_an_address_that_nobody_serves() -> None:
    """A refused connection is an answer with a failure."""
    with create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with connected(f"http://127.0.0.1:{port}") as connection:
        assert isinstance(connection.exchange(REQUEST).failure, ConnectionRefusedError)


def test_no_request_leaves_work_to_the_collector() -> None:
    """A round runs without garbage collection, so answers and failures leave no cycle of references."""
    with serving([GOOD] * 20) as server, connected(server.url) as connection:
        connection.exchange(REQUEST)
        gc.collect()
        for _ in range(19):
            connection.exchange(REQUEST)
        assert gc.collect() < 19
    with connected(server.url) as connection:
        for _ in range(20):
            connection.exchange(REQUEST)
        assert gc.collect() < 20


@pytest.mark.parametrize(
    ("status", "content", "failure", "words"),
    [
        (200, b'{"predictions": [{"class_index": 3}]}', None, ""),
        (200, b'{"predictions": 3}', None, "200 with an answer that cannot be read"),
        (200, b"", HTTPConnectionClosed(), "no answer: HTTPConnectionClosed"),
        (0, b"", ConnectionResetError(), "no answer: ConnectionResetError"),
        (0, b"", TimeoutError(), "timeout"),
        (200, b"", Timeout(1), "timeout"),
        (503, b'{"title": "Too many images are waiting"}', None, "503 Too many images are waiting"),
        (502, b"<html>", None, "502"),
    ],
)
def test_like_errors_have_the_same_words(
    status: int, content: bytes, failure: BaseException | None, words: str
) -> None:
    """The record names the failure by the status and title of the problem, or by why there is no answer."""
    assert record(0, 1.0, Answer(1.0, 2.0, status, content, failure)).error == words


def test_a_head_names_host_and_path() -> None:
    """The host has no credentials, and the path is quoted."""
    first = head("POST", "http://me:secret@[::1]:80/a b/predict/fp32", (("X-API-Key", "k"),))
    assert first.startswith(b"POST /a%20b/predict/fp32 HTTP/1.1\r\nHost: [::1]:80\r\n")
    assert first.endswith(b"X-API-Key: k\r\n")

"""One HTTP/1.1 connection to a service.

Every microsecond of the client counts in the latencies that it reports, and delays the requests of the other users. So
a request is one `sendall`, and httptools' C parser reads the answer.
"""

import select
import time
from contextlib import suppress
from functools import cache
from typing import NamedTuple
from urllib.parse import quote, urlsplit

import httptools
from gevent import Timeout, monkey, socket, ssl

BLOCK = 65_536
"""Bytes that are read at once at most."""
PATH = "/%~!$&'()*+,;=:@"
"""The characters of a path that stand for themselves (RFC 3986, section 3.3)."""
JSON_LENGTH = "Inference-Header-Content-Length"
"""The header of the Open Inference Protocol's binary tensors: the length of the JSON that comes before them."""
_JSON_LENGTH = JSON_LENGTH.lower().encode()
INTERIM = range(100, 200)
"""The statuses of answers that another one follows."""
poll = monkey.get_original("select", "poll")
"""The poll of the system, which does not go through gevent's loop."""


class HTTPConnectionClosed(Exception):
    """The service closed the connection before its answer was whole."""


class HTTPParseError(Exception):
    """The answer is not HTTP."""


class Answer(NamedTuple):
    """The answer to one request, or the part of it that came before a failure. Times are in seconds."""

    start: float
    """When the request was about to be sent. The time of a new connection counts."""
    end: float
    """When the last byte of the answer had been read, or the failure was known."""
    status: int
    """The HTTP status; 0 if none came."""
    content: bytes
    failure: BaseException | None
    """Why there is no whole answer."""
    json_length: int | None = None
    """The bytes of JSON before binary tensors in `content`, if the answer states them: see JSON_LENGTH."""


class _Reply:
    """The receiver of the parser's events for one answer. Their names are those of httptools."""

    def __init__(self) -> None:
        self.status = 0
        self.parts: list[bytes] = []
        self.complete = False
        self.keep_alive = False
        self.json_length: int | None = None
        self._to_the_end = False
        self._parser = httptools.HttpResponseParser(self)

    def feed(self, data: bytes) -> None:
        """Read a piece of the answer; an empty one stands for the end of the connection.

        Raises:
            HTTPConnectionClosed: the connection ended before the answer did.
            HTTPParseError: the piece is not HTTP.
        """
        if data:
            try:
                self._parser.feed_data(data)
            except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
                self.keep_alive = False
                if not self.complete:
                    raise HTTPParseError(str(error)) from error
        elif self._to_the_end:
            self.complete = True
        else:
            raise HTTPConnectionClosed

    def on_message_begin(self) -> None:
        """Forbid a further request if bytes follow the answer, since nobody asked for them."""
        self.keep_alive = False
        self._to_the_end = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Note whether the head says how long the body is, and how long its JSON is.

        A body of unknown length ends with the connection.
        """
        lower = name.lower()
        if lower in (b"content-length", b"transfer-encoding"):
            self._to_the_end = False
        elif lower == _JSON_LENGTH and value.isdigit():
            self.json_length = int(value)

    def on_headers_complete(self) -> None:
        """Keep the status of the first answer that is not an interim one."""
        if not self.complete:
            self.status = self._parser.get_status_code()

    def on_body(self, body: bytes) -> None:
        """Keep a part of the body."""
        if not self.complete:
            self.parts.append(body)

    def on_message_complete(self) -> None:
        """Note the end of the answer. Another one follows an interim one."""
        if self.status in INTERIM:
            self.status = 0
        elif not self.complete:
            self.complete = True
            self.keep_alive = self._parser.should_keep_alive()

    def detach(self) -> None:
        """Let go of the parser, which holds this receiver: nothing collects such cycles during a round."""
        del self._parser


@cache
def context() -> ssl.SSLContext:
    """Return the context of all connections. It verifies certificates, as the client of `/variants` does."""
    made = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    made.load_default_certs()
    return made


class Connection:
    """A connection that opens with the first request, and again after the service has closed it.

    A request is sent once at most. A connection on which anything happened while it was idle is stale and is replaced
    before the request is sent.
    """

    def __init__(self, url: str, timeout: float) -> None:
        parts = urlsplit(url)
        self._is_tls = parts.scheme == "https"
        self._host = parts.hostname or ""
        self._address = (self._host, parts.port or (443 if self._is_tls else 80))
        self._timeout = timeout
        self._socket: socket.socket | None = None
        self._poll = poll()

    def exchange(self, request: bytes) -> Answer:
        """Send a request and return its answer. All of it, connecting included, has to fit into the timeout."""
        reply = _Reply()
        failure: BaseException | None = None
        start = end = time.perf_counter()
        limit = Timeout(self._timeout)
        try:
            with limit:
                connected = self._connected()
                with suppress(BrokenPipeError, ConnectionResetError):  # an early answer may be there all the same
                    connected.sendall(request)
                while not reply.complete:
                    data = connected.recv(BLOCK)
                    end = time.perf_counter()
                    reply.feed(data)
        except (OSError, HTTPConnectionClosed, HTTPParseError, Timeout) as error:
            if isinstance(error, Timeout) and error is not limit:
                raise
            failure, end = error.with_traceback(None), time.perf_counter()  # a traceback holds this frame: a cycle
        finally:
            reply.detach()
            if not reply.complete or not reply.keep_alive:
                self.close()
        return Answer(start, end, reply.status, b"".join(reply.parts), failure, reply.json_length)

    def close(self) -> None:
        """Close the connection; the next request opens a new one."""
        if self._socket:
            self._poll.unregister(self._socket.fileno())
            self._socket.close()
            self._socket = None

    def _connected(self) -> socket.socket:
        if self._socket and self._poll.poll(0):
            self.close()
        if not self._socket:
            self._socket = self._open()
            self._poll.register(self._socket.fileno(), select.POLLIN)
        return self._socket

    def _open(self) -> socket.socket:
        opened = socket.create_connection(self._address)
        try:
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if self._is_tls:
                opened = context().wrap_socket(opened, server_hostname=self._host, do_handshake_on_connect=False)
                opened.do_handshake()
            return opened
        except BaseException:
            opened.close()
            raise


@cache
def head(method: str, url: str, headers: tuple[tuple[str, str], ...]) -> bytes:
    """Return a request's first lines, without the empty line that ends them."""
    parts = urlsplit(url)
    lines = [
        f"{method} {quote(parts.path, safe=PATH)} HTTP/1.1",
        f"Host: {parts.netloc.rpartition('@')[2]}",
        "User-Agent: precision-loadtest",
        "Accept-Encoding: identity",
        *(f"{name}: {value}" for name, value in headers),
    ]
    return "".join(f"{line}\r\n" for line in lines).encode("latin-1")

"""The rules of HTTP/1.1 (RFC 9110, 9112) that uvicorn leaves out: what a request's head may say.

The parser (llhttp) takes an `Upgrade` header for the end of HTTP on its connection. This service upgrades to nothing,
so the head is parsed again without that header.
"""

from typing import TYPE_CHECKING, Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol, RequestResponseCycle

from service.http.one_write import OneWrite

if TYPE_CHECKING:
    from array import array

SPACE = b" \t"
NOT_HTTP = "Invalid HTTP request received."


class Refused(Exception):
    """A head that breaks a rule. Its text is the body of the 400."""


class Parser(httptools.HttpRequestParser):
    """llhttp that goes on with HTTP after a request that asks for another protocol."""

    def __init__(self, protocol: "StrictProtocol") -> None:
        super().__init__(protocol)
        self._protocol = protocol

    def feed_data(self, data: "bytes | bytearray | memoryview[int] | array[int]") -> None:
        """Parse the data.

        Raises:
            httptools.HttpParserError: it is no HTTP, or a callback of the protocol raised.
        """
        rest = memoryview(data)
        while True:
            try:
                super().feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = rest[upgrade.args[0] :]
                super().feed_data(self._protocol.head_without_upgrade())
            else:
                return


class StrictProtocol(HttpToolsProtocol):
    """uvicorn's protocol, with a 400 for heads that break a rule, and without upgrades.

    The 400 comes after the answers to earlier requests on the connection. Nothing after the refused request is read.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.parser = Parser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)  # as uvicorn sets it
        self._broken_rule = NOT_HTTP
        self.is_refused = False

    def head_without_upgrade(self) -> bytes:
        """Return the head of the current request as it was received, without `Upgrade` headers."""
        first = b"%b %b HTTP/%b" % (self.parser.get_method(), self.url, self.parser.get_http_version().encode())
        lines = [b"%b: %b" % (name, value) for name, value in self.headers if name != b"upgrade"]
        return b"\r\n".join([first, *lines, b"", b""])

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, without the white space that may follow its value."""
        super().on_header(name, value.rstrip(SPACE))

    def on_headers_complete(self) -> None:
        """Check the head and start the request. A head that asks for an upgrade is not complete: it is parsed again."""
        try:
            _check(self.parser.get_method(), self.parser.get_http_version(), self.headers)
        except Refused as refused:
            self._broken_rule = str(refused)
            raise
        if not self.parser.should_upgrade():
            super().on_headers_complete()

    def on_message_complete(self) -> None:
        """End the request, unless its head is parsed again."""
        if not self.parser.should_upgrade():
            super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """Refuse what was parsed last, once all requests before it have their answers."""
        self.is_refused = True
        cycle: RequestResponseCycle | None = self.cycle  # uvicorn declares it without None
        is_in_body = cycle is not None and cycle.more_body
        if is_in_body and self.pipeline:
            self.pipeline.popleft()  # the newest request: its own body is the fault
        elif is_in_body or cycle is None or cycle.response_complete:
            super().send_400_response(self._broken_rule)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: Any) -> None:
        """Start the answer, which leaves in one write."""
        answering: Any = OneWrite(app, cycle)  # uvicorn and starlette have different types for the same messages
        super()._start_asgi_task(cycle, answering)

    def on_response_complete(self) -> None:
        """Start the next request, or send the 400 that waited for this answer."""
        is_last = self.is_refused and not self.pipeline
        super().on_response_complete()
        if is_last and not self.transport.is_closing():
            super().send_400_response(self._broken_rule)


def _check(method: bytes, version: str, headers: list[tuple[bytes, bytes]]) -> None:
    """Check a head against the rules that llhttp does not know.

    Raises:
        Refused: the method is CONNECT, there is not exactly one Host, or the body has another coding than chunked.
    """
    if method == b"CONNECT":
        raise Refused("expected another method: this service is no proxy")
    hosts = [value for name, value in headers if name == b"host"]
    if len(hosts) > 1 or (not hosts and version != "1.0"):
        raise Refused(f"expected exactly one Host header, got {len(hosts)}")
    codings = [value.lower() for name, value in headers if name == b"transfer-encoding"]
    if codings not in ([], [b"chunked"]):
        raise Refused("Transfer-Encoding: expected chunked alone")

"""File parts of multipart bodies: what is taken, what is dropped unread, what is refused."""

import time

import httpx
import pytest

from service.errors import ServiceError
from service.multipart import files_of


def body_of(parts: list[tuple[str, tuple[str | None, bytes]]]) -> tuple[str, bytes]:
    """A Content-Type and a body as a public client writes them."""
    request = httpx.Request("POST", "http://x", files=parts)
    return request.headers["content-type"], request.read()


def test_files_of_the_name_come_in_order() -> None:
    """Files of another name and text fields, whatever their name, are dropped."""
    parts = [
        ("image", ("a.png", b"one")), ("note", (None, b"text")), ("image", (None, b"text")),
        ("other", ("b.png", b"two")), ("image", ("b", b"\r\n--x")),
    ]  # fmt: skip
    assert files_of(*body_of(parts), "image", 10) == [b"one", b"\r\n--x"]


@pytest.mark.parametrize("charset", ["punycode", "idna", "utf-7", "unknown"])
def test_no_charset_is_honoured(charset: str) -> None:
    """8 MB of text in a codec of quadratic time cost what any 8 MB cost."""
    content_type, body = body_of([("text", (None, b"a" * 2**23)), ("image", ("a.png", b"one"))])
    began = time.process_time()
    assert files_of(f"{content_type}; charset={charset}", body, "image", 10) == [b"one"]
    plain = time.process_time()
    files_of(content_type, body, "image", 10)
    assert plain - began < 20 * (time.process_time() - plain) + 0.1


@pytest.mark.parametrize(
    ("content_type", "body", "reason"),
    [
        ("multipart/form-data", b"x", "names no boundary"),
        ("multipart/form-data; boundary=b", b"x", "could not be read"),
        ("multipart/form-data; boundary=b", b"--b\r\nX: y\r\n\r\nz\r\n--b--", "no name"),
        ("multipart/form-data; boundary=b", b"--b\r\nX: " + b"y" * 9000, "header size exceeded"),
        (*body_of([("image", ("a", b"z"))] * 11), "too many parts"),
    ],
)
def test_a_broken_body_is_malformed(content_type: str, body: bytes, reason: str) -> None:
    """The error says what is wrong."""
    with pytest.raises(ServiceError, match=reason) as caught:
        files_of(content_type, body, "image", 10)
    assert caught.value.reason.word == "malformed"

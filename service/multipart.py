"""The file parts of a multipart/form-data body, read with python-multipart's parser.

Text fields are dropped unread and no charset is honoured, so the client chooses no decoder. Starlette's own form
parser decodes text with the codec that the client names, some of which take quadratic time.
"""

from typing import TYPE_CHECKING

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from service.errors import ServiceError

if TYPE_CHECKING:
    from python_multipart.multipart import MultipartCallbacks

MOST_TYPE_CHARACTERS = 1000
"""Characters of a Content-Type that is parsed: 64 KB of parameters take 20 ms. A boundary has at most 70."""


class _Parts:
    """The callbacks of the parser: they collect the contents of the file parts with the wanted name."""

    def __init__(self, name: bytes, most: int) -> None:
        self._name, self._most = name, most
        self.files: list[bytes] = []
        self._count = 0
        self._header, self._value = bytearray(), bytearray()
        self._disposition = b""
        self._content: bytearray | None = None

    def on_part_begin(self) -> None:
        self._count += 1
        if self._count > self._most:
            raise ServiceError("malformed", f"the multipart body has too many parts, at most {self._most} are accepted")
        self._disposition, self._content = b"", None

    def on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def on_header_end(self) -> None:
        if self._header.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._header.clear()
        self._value.clear()

    def on_headers_finished(self) -> None:
        _, options = parse_options_header(self._disposition)
        if b"name" not in options:
            raise ServiceError("malformed", "a part of the multipart body has no name in its Content-Disposition")
        if b"filename" in options and options[b"name"] == self._name:
            self._content = bytearray()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._content is not None:
            self._content += memoryview(data)[start:end]

    def on_part_end(self) -> None:
        if self._content is not None:
            self.files.append(bytes(self._content))


def files_of(content_type: str, body: bytes, name: str, most: int) -> list[bytes]:
    """Return the contents of the file parts called `name`, in order.

    Args:
        content_type: the whole header, with the boundary.
        body: the whole body.
        name: the name of the wanted parts.
        most: how many parts of any kind are accepted.

    Raises:
        ServiceError: `malformed`: no boundary, a Content-Type that is too long, a broken structure, or too many parts.
    """
    if len(content_type) > MOST_TYPE_CHARACTERS:
        raise ServiceError("malformed", f"a Content-Type may have at most {MOST_TYPE_CHARACTERS} characters")
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise ServiceError("malformed", "the multipart body could not be read: its Content-Type names no boundary")
    parts = _Parts(name.encode(), most)
    callbacks: MultipartCallbacks = {
        "on_part_begin": parts.on_part_begin,
        "on_header_field": parts.on_header_field,
        "on_header_value": parts.on_header_value,
        "on_header_end": parts.on_header_end,
        "on_headers_finished": parts.on_headers_finished,
        "on_part_data": parts.on_part_data,
        "on_part_end": parts.on_part_end,
    }
    try:
        parser = MultipartParser(boundary, callbacks)
        parser.write(body)
        parser.finalize()
    except (FormParserError, ValueError) as error:
        raise ServiceError("malformed", f"the multipart body could not be read: {error}") from None
    return parts.files

"""Images as tensors of the Open Inference Protocol, and classes out of the tensors of its answers.

Tensors are JSON, or bytes after the JSON: the binary tensor data extension of Triton, which OpenVINO Model Server and
this project's service speak, too.
"""

import base64
import json
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from loadtest.client.answers import Said
from loadtest.client.connection import JSON_LENGTH, Answer
from loadtest.targets import Tensor

NUMBERS = {
    "BOOL": "?", "UINT8": "u1", "UINT16": "<u2", "UINT32": "<u4", "UINT64": "<u8", "INT8": "i1", "INT16": "<i2",
    "INT32": "<i4", "INT64": "<i8", "FP16": "<f2", "FP32": "<f4", "FP64": "<f8",
}  # fmt: skip
"""The types of numbers and how their bytes are read."""
RANKED = re.compile(r"[^:]*:(\d+)(:.*)?", re.DOTALL)
"""An element of Triton's classification extension, `value:index:label`; the label may be missing."""
_LENGTH = struct.Struct("<I")
Content = NDArray[Any] | Sequence[bytes]
"""The content of one input: numbers, or encoded images."""


@dataclass(frozen=True)
class Output:
    """The tensor of an answer that tells the classes, and how they are told."""

    name: str = ""
    """Empty for the first tensor of an answer."""
    labels: tuple[str, ...] = ()
    """The names of the classes in the order of their indices, for answers that hold names."""
    images: int = 1
    """Images in a request."""

    def read(self, answer: Answer) -> Said:
        """Return the classes in an answer: of numbers per class the largest, of whole numbers and texts the first.

        Raises:
            ValueError, KeyError, TypeError, IndexError: the answer is none of the protocol, or tells no classes.
        """
        head, binary = answer.content, b""
        if answer.json_length is not None:
            head, binary = answer.content[: answer.json_length], answer.content[answer.json_length :]
        tensor, data = self._found(json.loads(head)["outputs"], binary)
        return Said(tuple(self._classes(tensor["datatype"], tensor["shape"], data)))

    def _found(self, outputs: Sequence[Mapping[str, Any]], binary: bytes) -> tuple[Mapping[str, Any], Any]:
        """Return the tensor's description and its data: bytes, or what the JSON holds."""
        for tensor in outputs:
            size = (tensor.get("parameters") or {}).get("binary_data_size")
            if self.name in ("", tensor["name"]):
                return tensor, tensor["data"] if size is None else binary[:size]
            binary = binary[size or 0 :]
        raise KeyError(self.name)

    def _classes(self, datatype: str, shape: Sequence[int], data: Any) -> list[int]:
        if datatype == "BYTES":
            texts = elements(data) if isinstance(data, bytes) else flat(data)
            each = len(texts) // self.images
            return [self._index(text) for text in texts[:: max(1, each)]]
        kind = np.dtype(NUMBERS[datatype])
        numbers = np.frombuffer(data, kind) if isinstance(data, bytes) else np.array(data, kind).reshape(-1)
        if kind.kind == "f":
            classes: list[int] = numbers.reshape(self.images, -1).argmax(axis=1).tolist()
            if numbers.size < 2 * self.images:
                raise ValueError(f"{datatype} {list(shape)} holds no number per class")
            return classes
        whole: list[int] = numbers.reshape(self.images, -1)[:, 0].tolist()
        return whole

    def _index(self, text: str | bytes) -> int:
        """Return the index that a text states: `value:index:label`, the index itself, or the name of a class."""
        said = text.decode() if isinstance(text, bytes) else text
        if said in self.labels:
            return self.labels.index(said)
        if match := RANKED.fullmatch(said):
            return int(match[1])
        return int(said)


def flat(data: Any) -> list[Any]:
    """Return nested lists as one list."""
    return [each for part in data for each in flat(part)] if isinstance(data, list) else [data]


def elements(data: bytes) -> list[bytes]:
    """Return the elements of a BYTES tensor, each of which follows its length in 4 bytes."""
    found, start = [], 0
    while start < len(data):
        (length,) = _LENGTH.unpack_from(data, start)
        start += _LENGTH.size
        found.append(data[start : start + length])
        start += length
    return found


@dataclass(frozen=True)
class Form:
    """How tensors travel: in JSON, or as bytes after the JSON."""

    name: str
    is_binary: bool

    def encoded(self, tensors: Sequence[Tensor], contents: Sequence[Content], output: str) -> "Encoded":
        """Return the body of each request, and the headers that belong to all of them.

        Args:
            tensors: the input of each request, with its whole shape.
            contents: the content of each input.
            output: the name of the output that is asked for; empty for all.
        """
        if not self.is_binary:
            documents = [_document(one, {"data": _listed(c)}, output) for one, c in zip(tensors, contents, strict=True)]
            return Encoded((), "application/json", [json.dumps(document).encode() for document in documents])
        packed = [_packed(content) for content in contents]
        sizes = [{"parameters": {"binary_data_size": len(data)}} for data in packed]
        asked = {"parameters": {"binary_data_output": True}}
        heads = [
            json.dumps(_document(tensor, size, output) | asked).encode()
            for tensor, size in zip(tensors, sizes, strict=True)
        ]
        longest = max(map(len, heads))  # spaces make the JSON equally long, so that one header fits all requests
        bodies = [head.ljust(longest) + data for head, data in zip(heads, packed, strict=True)]
        return Encoded(((JSON_LENGTH, str(longest)),), "application/octet-stream", bodies)


@dataclass(frozen=True)
class Encoded:
    """The bodies of the requests of one arm."""

    headers: tuple[tuple[str, str], ...]
    content_type: str
    bodies: list[bytes]


FORMS = (Form("binary", is_binary=True), Form("JSON", is_binary=False))
"""The forms, in the order of ENCODINGS."""


def _document(tensor: Tensor, rest: dict[str, Any], output: str) -> dict[str, Any]:
    stated: dict[str, Any] = {"name": tensor.name, "shape": tensor.shape, "datatype": tensor.datatype, **rest}
    if tensor.datatype == "BYTES" and "data" in rest:
        stated["parameters"] = {"content_type": "base64"}  # what MLServer calls images in JSON
    return {"inputs": [stated]} | ({"outputs": [{"name": output}]} if output else {})


def _listed(content: Content) -> list[Any]:
    if isinstance(content, np.ndarray):
        numbers: list[Any] = content.reshape(-1).tolist()
        return numbers
    return [base64.b64encode(image).decode() for image in content]


def _packed(content: Content) -> bytes:
    if isinstance(content, np.ndarray):
        return content.tobytes()
    return b"".join(_LENGTH.pack(len(image)) + image for image in content)

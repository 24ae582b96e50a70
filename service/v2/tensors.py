"""Inference requests to pixels, and logits to inference responses. Tensors are JSON, or bytes after the JSON.

The layout is Triton's binary tensor data extension: `Inference-Header-Content-Length` is the length of the JSON, and
the bytes of tensors follow. 0 means that there is no JSON and the body is one tensor.
"""

import math
import re
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import ValidationError

from service.decoding import HEADER_LENGTH, IMAGE_TYPES, Received, check_json, decode, from_base64
from service.errors import ServiceError
from service.images import Limits
from service.v2.documents import (
    INPUT,
    OUTPUT,
    InferParameters,
    InferRequest,
    InferResponse,
    OutputParameters,
    Parameters,
    RequestedOutput,
    RequestInput,
    ResponseOutput,
)
from service.validation import first_mistake

REGION = "shared_memory_region"
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True, slots=True)
class Inference:
    """An inference request and its images. Its length is their number."""

    request: InferRequest
    pixels: NDArray[np.uint8]
    """`[N, 3, S, S]`, S the side that the network reads."""

    def __len__(self) -> int:
        return len(self.pixels)


def inference_of(received: Received, limits: Limits) -> Inference:
    """Return the inference request in a body.

    Raises:
        ServiceError: `malformed`, `unacceptable`, `not_an_image` or `too_large`.
        service.images.Heavy: the body costs more than it may in this place.
    """
    body = received.inflated(limits)
    length = _header_length(received, len(body))
    if length == 0:
        return _raw_request(received, body, limits)
    limits.check_bytes(length)
    limits.check_arrays(body.count(b"[", 0, length))
    check_json(body[:length], limits.max_images * math.prod((*limits.shape[:2], limits.side + 2)))
    try:
        request = InferRequest.model_validate_json(body[:length])
    except ValidationError as error:
        raise ServiceError("malformed", f"the inference request: {first_mistake(error)}") from None
    if request.inputs[0].name != INPUT or any(output.name != OUTPUT for output in request.outputs):
        raise ServiceError("unacceptable", f"expected the input `{INPUT}` and the output `{OUTPUT}`")
    if any(REGION in parameters for parameters in _parameters(request)):
        raise ServiceError("unacceptable", "shared memory is not supported: tensors go in the body")
    pixels = _images(request.inputs[0], body[length:], limits)
    request.inputs[0].data = None  # the pixels say it all, and the request may travel between processes
    return Inference(request, pixels)


def _parameters(request: InferRequest) -> list[Parameters]:
    """Return the parameters of each tensor that this service does not know by name."""
    return [request.inputs[0].parameters, *(output.parameters.model_extra or {} for output in request.outputs)]


def check_classification(request: InferRequest, classes: int) -> None:
    """Raise ServiceError `malformed` if the request asks for more classes than the network has."""
    wanted = max([output.parameters.classification for output in request.outputs], default=0)
    if wanted > classes:
        raise ServiceError(
            "malformed", f"classification is {wanted}, and the network has {classes} classes, so at most {classes}"
        )


def _header_length(received: Received, size: int) -> int:
    given = str(size) if received.header_length is None else received.header_length.strip()
    if not re.fullmatch(r"\d{1,9}", given) or int(given) > size:
        raise ServiceError("malformed", f"{HEADER_LENGTH}: expected at most the body's {size} bytes, got {given}")
    return int(given)


def _raw_request(received: Received, body: bytes, limits: Limits) -> Inference:
    """Return the request in a body without JSON: an encoded image or raw pixels. Its answer is binary."""
    parts = [body] if received.content_type in IMAGE_TYPES else None
    limits.check_bytes(0 if parts is None else len(body))
    pixels = decode(parts, body, limits)
    tensor = RequestInput(name=INPUT, datatype="UINT8", shape=list(pixels.shape))
    return Inference(InferRequest(inputs=[tensor], parameters=InferParameters(binary_data_output=True)), pixels)


def _images(tensor: RequestInput, binary: bytes, limits: Limits) -> NDArray[np.uint8]:
    size = tensor.parameters.get("binary_data_size")
    if size is None:
        if binary or tensor.data is None:
            raise ServiceError("malformed", f"`{INPUT}` needs `data`, or `binary_data_size` and bytes after the JSON")
    elif size != len(binary):
        raise ServiceError("malformed", f"binary_data_size is {size}, and {len(binary)} bytes follow the JSON")
    count, rest = tensor.shape[0] if tensor.shape else 0, tuple(tensor.shape[1:])
    if tensor.datatype == "UINT8" and rest == limits.shape and count > 0:
        return decode(None, binary if size is not None else _bytes_of(tensor.data or []), limits, count)
    if tensor.datatype == "BYTES" and rest in ((), (1,)) and count > 0:
        limits.check_bytes(len(binary))
        parts = _elements(binary) if size is not None else _texts(tensor.data or [])
        return decode(parts, b"", limits, count)
    raise ServiceError(
        "unacceptable",
        f"expected UINT8 [N, 3, {limits.side}, {limits.side}] or BYTES [N], N at least 1, "
        f"got {tensor.datatype} {tensor.shape}",
    )


def _bytes_of(data: list[Any]) -> bytes:
    """Return JSON numbers, nested or flat, as bytes. NumPy is not used: it would pad each text to the longest one."""
    mistake = ServiceError("malformed", f"the data of `{INPUT}` must be integers from 0 to 255")
    while (kinds := set(map(type, data))) == {list} and len(set(map(len, data))) == 1:
        data = list(chain.from_iterable(data))
    if not kinds <= {int}:
        raise mistake
    try:
        return bytes(data)
    except ValueError:
        raise mistake from None


def _texts(data: list[Any]) -> list[bytes]:
    """Return the encoded images in JSON texts, `[N]` or `[N, 1]`."""
    flat = [element[0] if isinstance(element, list) and len(element) == 1 else element for element in data]
    if not all(isinstance(text, str) for text in flat):
        raise ServiceError("malformed", f"the data of `{INPUT}` must be base64 texts")
    return from_base64(flat)


def _elements(binary: bytes) -> list[bytes]:
    """Return the elements of a binary BYTES tensor, each of which follows its length in 4 bytes, little-endian."""
    parts: list[bytes] = []
    start = 0
    while start < len(binary):
        first = start + _LENGTH.size
        end = first + _LENGTH.unpack_from(binary, start)[0] if first <= len(binary) else first
        if end > len(binary):
            raise ServiceError(
                "malformed", f"element {len(parts)} of `{INPUT}` is longer than what is left of the body"
            )
        parts.append(binary[first:end])
        start = end
    return parts


def respond(
    request: InferRequest, logits: NDArray[np.float32], classes: Sequence[str], model: str, version: str
) -> tuple[bytes, dict[str, str]]:
    """Return the body for `[N, classes]` logits, and its headers."""
    wanted = request.outputs[0] if request.outputs else RequestedOutput(name=OUTPUT)
    binary = wanted.parameters.binary_data
    tensor, data = _output(
        logits, classes, wanted.parameters, request.parameters.binary_data_output if binary is None else binary
    )
    response = InferResponse(model_name=model, model_version=version, id=request.id, outputs=[tensor])
    head = response.model_dump_json(exclude_none=True).encode()
    if data is None:
        return head, {"Content-Type": "application/json"}
    return head + data, {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(head))}


def _output(
    logits: NDArray[np.float32], classes: Sequence[str], wanted: OutputParameters, binary: bool
) -> tuple[ResponseOutput, bytes | None]:
    texts = _best(logits, classes, wanted.classification) if wanted.classification else None
    tensor = ResponseOutput(
        name=OUTPUT,
        datatype="FP32" if texts is None else "BYTES",
        shape=[len(logits), wanted.classification or len(classes)],
    )
    if not binary:
        tensor.data = logits.ravel().tolist() if texts is None else texts
        return tensor, None
    if texts is None:
        data = logits.astype("<f4", copy=False).tobytes()
    else:
        data = b"".join(_LENGTH.pack(len(text)) + text.encode() for text in texts)
    tensor.parameters = {"binary_data_size": len(data)}
    return tensor, data


def _best(logits: NDArray[np.float32], classes: Sequence[str], count: int) -> list[str]:
    """Return the best classes of each image as `value:index:label`."""
    order = np.argsort(-logits, axis=1, kind="stable")[:, :count]
    return [f"{row[i]:f}:{i}:{classes[i]}" for row, best in zip(logits, order, strict=True) for i in best]

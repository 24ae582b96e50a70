"""A small server of the Open Inference Protocol with known answers, as threads of the test's own process.

The right class of an image is its first byte modulo 10, in the red channel of its first pixel.
"""

import base64
import io
import json
import struct
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

NAMES = ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
KINDS = {"UINT8": "u1", "FP16": "<f2", "FP32": "<f4"}


@dataclass(frozen=True)
class Fake:
    """A model: its input, how it tells the classes, whether it takes bytes after the JSON, and how long it takes."""

    datatype: str = "UINT8"
    shape: tuple[int, ...] = (-1, 3, 32, 32)
    tells: str = "logits"
    is_binary: bool = True
    delay: float = 0.0
    is_broken: bool = False
    first: Callable[[float], float] = float
    """Returns the byte of a normalised pixel."""
    wrong_below: int = 0
    """The second byte of an image below which the answer is wrong."""


def metadata(name: str, model: Fake) -> dict[str, Any]:
    """Return the metadata of a model."""
    inputs = [{"name": "pixels", "datatype": model.datatype, "shape": model.shape}]
    return {"name": name, "versions": ["1"], "platform": "fake", "inputs": inputs, "outputs": []}


def infer(model: Fake, body: bytes, json_length: int | None) -> tuple[bytes, int | None]:
    """Return the answer to an inference request, and the length of its JSON if bytes follow it."""
    if json_length is not None and not model.is_binary:
        raise ValueError("bytes after the JSON are not supported")
    if model.is_broken:
        raise ValueError("the model is broken")
    request = json.loads(body[:json_length])
    (tensor,) = request["inputs"]
    classes = [_class(model, image) for image in _images(tensor, body[json_length:] if json_length else None)]
    outputs, binary = _told(model, classes)
    if not request.get("parameters", {}).get("binary_data_output"):
        return json.dumps({"model_name": "fake", "outputs": outputs}).encode(), None
    assert binary is not None
    for output in outputs:
        del output["data"]
        output["parameters"] = {"binary_data_size": len(binary)}
    head = json.dumps({"model_name": "fake", "outputs": outputs}).encode()
    return head + binary, len(head)


def _images(tensor: dict[str, Any], binary: bytes | None) -> Sequence[NDArray[Any]]:
    """Return the images of an input, each with its first and second byte first."""
    if binary is not None and len(binary) != tensor["parameters"]["binary_data_size"]:
        raise ValueError("binary_data_size is not the number of bytes")
    if tensor["datatype"] == "BYTES":
        parts = list(_elements(binary)) if binary is not None else [base64.b64decode(text) for text in tensor["data"]]
        return [np.asarray(Image.open(io.BytesIO(part))).transpose(2, 0, 1).reshape(-1) for part in parts]
    kind = KINDS[tensor["datatype"]]
    array = np.frombuffer(binary, kind) if binary is not None else np.array(tensor["data"], kind)
    pixels = array.reshape(tensor["shape"])
    pixels = pixels if pixels.ndim == 4 else pixels[np.newaxis]
    ordered = pixels.transpose(0, 3, 1, 2) if pixels.shape[-1] == 3 else pixels
    return list(ordered.reshape(len(ordered), -1))


def _elements(binary: bytes) -> Iterator[bytes]:
    while binary:
        (length,) = struct.unpack_from("<I", binary)
        yield binary[4 : 4 + length]
        binary = binary[4 + length :]


def _class(model: Fake, image: NDArray[Any]) -> int:
    first, second = (round(model.first(float(value))) for value in image[:2])
    return (first + (second < model.wrong_below)) % 10


def _told(model: Fake, classes: Sequence[int]) -> tuple[list[dict[str, Any]], bytes | None]:
    """Return the output tensors with JSON data, and the bytes of the same data."""
    if model.tells == "logits":
        logits = np.eye(10, dtype="<f4")[list(classes)] * 9 - 1
        output = {"name": "logits", "datatype": "FP32", "shape": logits.shape, "data": logits.reshape(-1).tolist()}
        return [output], logits.tobytes()
    if model.tells == "index":
        whole = np.array(classes, "<i8")
        return [{"name": "class", "datatype": "INT64", "shape": [len(whole)], "data": whole.tolist()}], whole.tobytes()
    texts = [NAMES[c] if model.tells == "label" else f"0.9:{c}:{NAMES[c]}" for c in classes]
    binary = b"".join(struct.pack("<I", len(text)) + text.encode() for text in texts)
    return [{"name": "label", "datatype": "BYTES", "shape": [len(texts), 1], "data": texts}], binary


class Serving(ThreadingHTTPServer):
    """The server of some models."""

    daemon_threads = True
    models: dict[str, Fake]


class Handler(BaseHTTPRequestHandler):
    """The routes that the load test uses."""

    server: "Serving"
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        _, version, *rest = self.path.split("/")
        if version != "v2":
            self._answer(404, b"")
        elif rest[:1] == ["models"]:
            known = self.server.models.get(rest[1])
            self._answer(200 if known else 404, json.dumps(known and metadata(rest[1], known)).encode())
        else:
            self._answer(200, json.dumps({"name": "fake", "version": "1", "extensions": []}).encode())

    def do_POST(self) -> None:
        model = self.server.models[self.path.split("/")[3]]
        body = self.rfile.read(int(self.headers["Content-Length"]))
        length = self.headers["Inference-Header-Content-Length"]
        # The planted time of the forward pass: a test compares what the load test measures with it.
        time.sleep(model.delay)
        try:
            self._answer(200, *infer(model, body, None if length is None else int(length)))
        except (ValueError, KeyError) as error:
            self._answer(400, json.dumps({"error": str(error)}).encode())

    def _answer(self, status: int, content: bytes, json_length: int | None = None) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        if json_length is not None:
            self.send_header("Inference-Header-Content-Length", str(json_length))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def serving(models: dict[str, Fake]) -> Iterator[str]:
    """Serve models and yield the base URL."""
    server = Serving(("127.0.0.1", 0), Handler)
    server.models = models
    thread = Thread(target=server.serve_forever, args=(0.05,))
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()

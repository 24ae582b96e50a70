"""Small servers around an INT8 runtime, peers of `benchmarks.startup`: `python -m benchmarks.bare KIND PORT FOLDER`.

`onnxruntime` and `openvino` are a FastAPI app that runs the network in its own process, `litserve` is LitServe as
shipped around the same OpenVINO network. FOLDER keeps the networks; `prepare` makes them, which needs torch. A server
needs none.
"""

import io
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

import litserve
import numpy as np
import uvicorn
from fastapi import Depends, FastAPI
from numpy.typing import NDArray
from PIL import Image
from starlette.requests import Request

from benchmarks.runtimes import Run, onnxruntime_int8, openvino_int8
from common import machine

ANY_SIZE = -1
"""The batch size of a network that takes batches of all sizes."""


def onnxruntime(folder: Path) -> Run:
    """Return ONNX Runtime's INT8 network on all cores."""
    return onnxruntime_int8(machine.available_cores(), folder)(ANY_SIZE)


def openvino(folder: Path) -> Run:
    """Return OpenVINO's INT8 network, quantized by NNCF, on all cores."""
    return openvino_int8(machine.available_cores(), folder)(ANY_SIZE)


RUNTIMES: dict[str, Callable[[Path], Run]] = {"onnxruntime": onnxruntime, "openvino": openvino}


async def pixels_of(request: Request) -> NDArray[np.uint8]:
    """Return a PNG, or raw pixels, as `[N, 3, 32, 32] uint8`."""
    body = await request.body()
    if request.headers["content-type"] == "application/octet-stream":
        return np.frombuffer(body, np.uint8).reshape(-1, 3, 32, 32)
    with Image.open(io.BytesIO(body)) as image:
        return np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1)[None])


def classes(logits: NDArray[np.float32]) -> dict[str, list[int]]:
    """Return the answer: the class of each image."""
    return {"classes": logits.argmax(1).tolist()}


def app(run: Run) -> FastAPI:
    """Return an app that answers `POST /predict` with the classes, and `GET /health` once it listens."""
    made = FastAPI()

    @made.get("/health")
    async def health() -> str:
        return "ok"

    @made.post("/predict")
    async def predict(pixels: Annotated[Any, Depends(pixels_of)]) -> dict[str, list[int]]:
        return classes(run(pixels))

    return made


class OpenVINOAPI(litserve.LitAPI):  # type: ignore[misc]
    """A LitAPI as LitServe's documentation writes one."""

    def __init__(self, folder: Path) -> None:
        super().__init__()
        self.folder = folder

    def setup(self, device: str) -> None:
        """Load the network."""
        self.network = openvino(self.folder)

    def decode_request(self, request: Annotated[Any, Depends(pixels_of)]) -> Any:
        """Return the pixels, which FastAPI's dependency has decoded."""
        return request

    def predict(self, x: Any) -> dict[str, list[int]]:
        """Return the classes."""
        return classes(self.network(x))


def main(kind: str, port: int, folder: Path) -> None:
    """Serve until the process is stopped, or make the networks (`prepare`)."""
    if kind == "prepare":
        folder.mkdir(parents=True, exist_ok=True)
        for build in RUNTIMES.values():
            build(folder)
    elif kind == "litserve":
        server = litserve.LitServer(OpenVINOAPI(folder), accelerator="cpu")
        server.run(host="127.0.0.1", port=port, num_api_servers=1, log_level="warning", generate_client_file=False)
    else:
        uvicorn.run(app(RUNTIMES[kind](folder)), port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))

"""Three servers that decode the same PNG and answer without a network: `python -m benchmarks.noop KIND PORT`.

Without a network, only the cost of serving is measured. `service` is this project's server, `litserve` is LitServe as
shipped with its defaults. `fastapi` answers within the HTTP process, which is faster than any server with a separate
worker can be.
"""

import sys
from collections.abc import Sequence
from typing import Annotated, Any

import litserve
import numpy as np
import uvicorn
from fastapi import Depends, FastAPI
from numpy.typing import NDArray
from starlette.requests import Request

from models import cifar10
from models.engines.base import Engine, EngineInfo, Execution
from models.selftest import Examined
from models.variants import VARIANTS
from service.images import Limits, decode
from service.serving import serve
from service.settings import Settings
from service.workers.api import PrecisionAPI

LIMITS = Limits(max_images=1, max_pixels=16_777_216)


class NoopEngine:
    """An engine that gives zeros for every image and takes no time."""

    device = "cpu"
    variant = VARIANTS["fp32"]
    info = EngineInfo(
        variant="fp32", device="cpu", device_name="none", dtype="none", backend="none", backend_version="none",
        isa="none", tensor_cores=False, device_memory_bytes=0, threads=0, device_uuid="", torch="none",
        checkpoint_sha256="none", serialized_bytes=0, parameter_bytes=0, buffer_bytes=0, input_size=32,
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), architecture="none",
        classes=cifar10.CLASSES,
    )  # fmt: skip

    def __init__(self) -> None:
        self.activation_peaks: dict[int, int] = {}
        self.allocator: dict[str, int] = {}

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        """Do nothing."""

    def run(self, pixels: NDArray[np.uint8]) -> Execution:
        """Return zeros, and zeros for all costs."""
        return Execution(np.zeros((len(pixels), 10), np.float32), 0.0, 0.0, 0.0, 0.0, 0, "activation_peak")


class NoopAPI(PrecisionAPI):
    """This project's LitAPI with the engine that does nothing."""

    def load_engine(self) -> Engine:
        """Return the engine that does nothing."""
        return NoopEngine()

    def examine(self, engine: Engine) -> Examined:
        """Return an agreement of 1: there is nothing to compare."""
        return Examined(1.0, None)


async def pixels_of(request: Request) -> NDArray[np.uint8]:
    """Return the decoded body."""
    return decode(await request.body(), LIMITS)


class ShippedAPI(litserve.LitAPI):  # type: ignore[misc]
    """A LitAPI as LitServe's documentation writes one; it answers without a network."""

    def decode_request(self, request: Annotated[Any, Depends(pixels_of)]) -> Any:
        """Return the pixels, which FastAPI's dependency has decoded."""
        return request

    def predict(self, x: Any) -> dict[str, Any]:
        """Return the same class for every image."""
        return {"label": "airplane", "class_index": int(x[0, 0, 0]) * 0}


def fastapi_app() -> FastAPI:
    """Return an app that decodes and answers within the HTTP process."""
    app = FastAPI()

    @app.post("/predict")
    async def predict(pixels: Annotated[Any, Depends(pixels_of)]) -> dict[str, Any]:
        return {"label": "airplane", "class_index": int(pixels[0, 0, 0]) * 0}

    return app


def main(kind: str, port: int) -> None:
    """Serve with the server `kind` until the process is stopped."""
    if kind == "service":
        serve(Settings(port=port, variants=("fp32",), log_level="warning"), api=NoopAPI)
    elif kind == "litserve":
        server = litserve.LitServer(ShippedAPI(), accelerator="cpu")
        server.run(host="127.0.0.1", port=port, num_api_servers=1, log_level="warning", generate_client_file=False)
    else:
        uvicorn.run(fastapi_app(), port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]))

"""Three servers that decode the same PNG and answer without a network: `python -m benchmarks.noop KIND PORT [VARIANT]`.

What is left is the cost of the serving itself. `service` is this project's (signals of SWITCHES turn its metrics and
log on and off), `litserve` is LitServe as shipped with its defaults, `fastapi` answers within the HTTP process: what no
separate worker can reach. With a variant, this project's serves its real network.
"""

import logging
import signal
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import litserve
import numpy as np
import uvicorn
from fastapi import Depends, FastAPI
from numpy.typing import NDArray
from starlette.requests import Request

from models.engines.base import Engine, EngineInfo, Execution
from models.variants import VARIANTS
from service.__main__ import serve
from service.images import Limits, decode
from service.metrics import Metrics
from service.settings import Settings
from service.workers.api import PrecisionAPI
from service.workers.status import WorkerInfo

LIMITS = Limits(max_images=1, max_pixels=16_777_216)


class NoopEngine:
    """Zeros for every image."""

    device = "cpu"
    variant = VARIANTS["fp32"]
    info = EngineInfo(
        variant="fp32", device="cpu", device_name="none", dtype="none", backend="none", backend_version="none",
        isa="none", tensor_cores=False, device_memory_bytes=0, threads=0, device_uuid="", torch="none",
        checkpoint_sha256="none", serialized_bytes=0, parameter_bytes=0, buffer_bytes=0, input_size=32,
        mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0), architecture="none",
    )  # fmt: skip

    def __init__(self) -> None:
        self.activation_peaks: dict[int, int] = {}
        self.allocator: dict[str, int] = {}

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        pass

    def run(self, pixels: NDArray[np.uint8]) -> Execution:
        return Execution(np.zeros((len(pixels), 10), np.float32), 0.0, 0.0, 0.0, 0.0, 0, "activation_peak")


class NoopAPI(PrecisionAPI):
    def load_engine(self) -> Engine:
        return NoopEngine()

    def agreement(self, engine: Engine) -> float:
        return 1.0


class Switched(Metrics):
    """Observes requests while `on`. To be switched while there are none."""

    on = True

    def started(self, variant: str) -> None:
        if self.on:
            super().started(variant)

    def ended(self, variant: str, outcome: str, seconds: float) -> None:
        if self.on:
            super().ended(variant, outcome, seconds)

    def answered(
        self, variant: str, info: WorkerInfo, images: int, phases: dict[str, float], memory_bytes: int
    ) -> None:
        if self.on:
            super().answered(variant, info, images, phases, memory_bytes)

    def batch(self, variant: str, images: int, seconds: float) -> None:
        if self.on:
            super().batch(variant, images, seconds)


SWITCHES = {
    # signal: metrics, log level
    signal.SIGUSR1: (True, logging.INFO),
    signal.SIGUSR2: (True, logging.WARNING),
    signal.SIGHUP: (False, logging.WARNING),
}


def switch(number: int, _frame: object) -> None:
    Switched.on, level = SWITCHES[signal.Signals(number)]
    logging.getLogger().setLevel(level)


async def pixels_of(request: Request) -> NDArray[np.uint8]:
    return decode(await request.body(), LIMITS)


class ShippedAPI(litserve.LitAPI):  # type: ignore[misc]
    def decode_request(self, request: Annotated[Any, Depends(pixels_of)]) -> Any:
        return request

    def predict(self, x: Any) -> dict[str, Any]:
        return {"label": "airplane", "class_index": int(x[0, 0, 0]) * 0}


def fastapi_app() -> FastAPI:
    app = FastAPI()

    @app.post("/predict")
    async def predict(pixels: Annotated[Any, Depends(pixels_of)]) -> dict[str, Any]:
        return {"label": "airplane", "class_index": int(pixels[0, 0, 0]) * 0}

    return app


def main(kind: str, port: int, variant: str = "") -> None:
    if kind == "service":
        for number in SWITCHES:
            signal.signal(number, switch)
        api = PrecisionAPI if variant else NoopAPI
        settings = Settings(port=port, variants=(variant or "fp32",), log_level="warning")
        serve(settings, api=api, metrics=Switched)
    elif kind == "litserve":
        server = litserve.LitServer(ShippedAPI(), accelerator="cpu")
        server.run(host="127.0.0.1", port=port, num_api_servers=1, log_level="warning", generate_client_file=False)
    else:
        uvicorn.run(fastapi_app(), port=port, log_level="warning", access_log=False)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), *sys.argv[3:])

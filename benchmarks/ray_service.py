"""OpenVINO's own INT8 network as a deployment of Ray Serve, a peer of the benchmarks. It has its own environment.

python -m benchmarks.ray_service PORT FOLDER
"""

import io
import signal
import sys
from pathlib import Path

import numpy as np
import ray
from numpy.typing import NDArray
from PIL import Image
from ray import serve
from starlette.requests import Request

from benchmarks.runtimes import openvino_int8
from common import machine


class Int8:
    """The network: it takes a PNG and gives the class."""

    def __init__(self, folder: Path) -> None:
        """Load the network."""
        self.network = openvino_int8(machine.available_cores(), folder)(-1)

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0)  # type: ignore[untyped-decorator]
    async def classes(self, images: list[NDArray[np.uint8]]) -> list[int]:
        """Return the class of each image of the requests that wait together."""
        found: list[int] = self.network(np.stack(images)).argmax(1).tolist()
        return found

    async def __call__(self, request: Request) -> dict[str, list[int]]:
        """Answer a request."""
        with Image.open(io.BytesIO(await request.body())) as image:
            pixels = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
        return {"classes": [await self.classes(pixels)]}


def main(port: int, folder: Path) -> None:
    """Serve until the process is stopped."""
    ray.init(include_dashboard=False, log_to_driver=False)
    serve.start(http_options={"host": "127.0.0.1", "port": port})
    serve.run(serve.deployment(Int8, max_ongoing_requests=64).bind(folder), route_prefix="/predict")
    signal.sigwait({signal.SIGINT, signal.SIGTERM})
    ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]))

"""OpenVINO's own INT8 network as a service of BentoML, a peer of the benchmarks. It has its own environment.

    NETWORKS=FOLDER bentoml serve benchmarks.bentoml_service:Int8 --port PORT

BentoML's batching takes arrays and lists, not the body of one PNG, so each request is a batch of its own.
"""

import os
from pathlib import Path

import bentoml
import numpy as np
from PIL.Image import Image

from benchmarks.runtimes import openvino_int8
from common import machine


@bentoml.service(workers=1)
class Int8:
    """The network: it takes a PNG and gives the class."""

    def __init__(self) -> None:
        """Load the network."""
        self.network = openvino_int8(machine.available_cores(), Path(os.environ["NETWORKS"]))(-1)

    @bentoml.api(route="/predict")  # type: ignore[untyped-decorator]
    def predict(self, image: Image, /) -> dict[str, list[int]]:
        """Return the class."""
        pixels = np.ascontiguousarray(np.asarray(image.convert("RGB")).transpose(2, 0, 1)[None])
        return {"classes": self.network(pixels).argmax(1).tolist()}

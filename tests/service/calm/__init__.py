"""The fakes without their faults: class index = first byte modulo 10, whatever is sent. For random input."""

import numpy as np
from numpy.typing import NDArray

from models.engines.base import Engine, Execution
from tests.service.fakes import FakeAPI, FakeEngine


class CalmEngine(FakeEngine):
    def run(self, pixels: NDArray[np.uint8]) -> Execution:
        return super().run(pixels % 10)


class CalmAPI(FakeAPI):
    def load_engine(self) -> Engine:
        return super().load_engine() if self.variant.name == "fp16" else CalmEngine(self.variant.name)

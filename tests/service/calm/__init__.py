"""The fakes without their faults: class index = first byte modulo 10, whatever is sent. For random input.

int8 says that its accuracy on labelled images is suspect.
"""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from models.engines.base import Engine, Execution
from models.selftest import Examined
from tests.service.fakes import SAMPLE, FakeAPI, FakeEngine

DOUBT = "top-1 accuracy is 10.0%. Is the normalisation right?"


class CalmEngine(FakeEngine):
    def run(self, pixels: NDArray[np.uint8]) -> Execution:
        return super().run(pixels % 10)


class CalmAPI(FakeAPI):
    def load_engine(self) -> Engine:
        return super().load_engine() if self.variant.name == "fp16" else CalmEngine(self.variant.name)

    def examine(self, engine: Engine) -> Examined:
        doubted = replace(SAMPLE, correct=10, accuracy=0.1, warning=DOUBT)
        return Examined(1.0, doubted if self.variant.name == "int8" else SAMPLE)

"""A service whose engines are fakes with known answers and known faults, for tests that need no network weights.

`python -m tests.service.fakes FLAGS` takes the flags of `python -m service`. The first pixel of an image is a command.
"""

import os
import time
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from models import cifar10
from models.accuracy import SampleAccuracy
from models.engines.base import DeviceLost, Engine, EngineInfo, Execution, OutOfMemory, check_logits
from models.selftest import Examined
from models.variants import VARIANTS, Variant
from service.settings import Settings
from service.workers.api import PrecisionAPI
from service.workers.status import WorkerInfo

DIFFER, RAISE, UNPICKLABLE, DIE, HANG, STALL = 249, 250, 251, 252, 253, 254
"""Values of an image's first byte. In this order: int8 answers with the next class, the engine raises, raises what
cannot be pickled, exits, never answers, takes 1 s."""
NAN, CROWDED, LOST = 246, 247, 248
"""NaN for that image; no memory for it and others in one batch; the device is lost."""


SAMPLE = SampleAccuracy(correct=95, images=100, accuracy=0.95, claimed=0.95, source="sample.npz")
"""The accuracy that every fake engine says that it has."""


def engine_info(variant: Variant) -> EngineInfo:
    """Return the info of a fake engine."""
    return EngineInfo(
        variant=variant.name, device="cpu", device_name="fake", dtype=variant.dtype, backend="fake",
        backend_version="none", isa="none", tensor_cores=False, device_memory_bytes=0, threads=1, device_uuid="",
        torch="none", checkpoint_sha256="0" * 64, serialized_bytes=3, parameter_bytes=2, buffer_bytes=1, input_size=32,
        mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5), architecture="none",
        classes=cifar10.CLASSES,
    )  # fmt: skip


def worker_info(variant: str = "int8", **changes: Any) -> WorkerInfo:
    """Return the info of a worker that runs a fake engine, with these fields changed."""
    measured = {"load_seconds": 0.5, "warmup_seconds": 0.25, "selftest_agreement": 0.99}
    measured |= {
        "full_batch_seconds": 0.0012,
        "memory_kind": "activation_peak",
        "activation_peaks": FakeEngine.activation_peaks,
    }
    return WorkerInfo(**asdict(engine_info(VARIANTS[variant])) | measured | changes)


class FakeEngine:
    """Class index = first byte modulo 10; logit 5 there, 0 elsewhere."""

    device = "cpu"
    activation_peaks: ClassVar[dict[int, int]] = {1: 1000, 2: 2000}
    allocator: ClassVar[dict[str, int]] = {}

    def __init__(self, name: str) -> None:
        self.variant = VARIANTS[name]
        self.info = engine_info(self.variant)

    def warm_up(self, batch_sizes: Sequence[int]) -> None:
        pass

    def run(self, pixels: NDArray[np.uint8]) -> Execution:
        commands = pixels[:, 0, 0, 0]
        if (commands == RAISE).any():
            raise RuntimeError("told to")
        if (commands == UNPICKLABLE).any():
            raise type("Local", (Exception,), {"__reduce__": lambda self: (lambda: None, ())})("told to")
        if (commands == DIE).any():
            os._exit(3)
        if (commands == HANG).any():
            time.sleep(3600)
        if (commands == STALL).any():
            time.sleep(1)
        if (commands == CROWDED).any() and len(pixels) > 1:
            raise OutOfMemory("no memory, as told")
        if (commands == LOST).any():
            raise DeviceLost("lost, as told")
        time.sleep(0.0012)  # as long as it says below: phases must not exceed the request's duration
        logits = np.zeros((len(pixels), 10), np.float32)
        differs = (commands == DIFFER) & (self.variant.name == "int8")
        logits[np.arange(len(pixels)), (commands + differs) % 10] = 5
        logits[commands == NAN] = np.nan
        check_logits(logits, self.variant.name)
        return Execution(logits, 0.0001, 0.001, 0.0001, 0.0012, 1000 * len(pixels), "activation_peak")


class FakeAPI(PrecisionAPI):
    """int8-dynamic fails to start, fp32-cpu dies at each start, fp16 is the real one: unavailable without a GPU."""

    def load_engine(self) -> Engine:
        if self.variant.name == "int8-dynamic":
            raise RuntimeError("/some/where/weights: this fake never starts")
        if self.variant.name == "fp32-cpu":
            os._exit(4)
        if self.variant.name == "fp16":
            return super().load_engine()
        return FakeEngine(self.variant.name)

    def examine(self, engine: Engine) -> Examined:
        return Examined(1.0, SAMPLE)


def fake_api(name: str, settings: Settings) -> FakeAPI:
    return FakeAPI(name, settings)

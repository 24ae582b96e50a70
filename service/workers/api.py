"""The API of all variants. An instance serves one variant, which is a row of models.variants.

It has the hooks of a LitAPI, `setup` and `predict`, and does not inherit from it: LitServe brings FastAPI, which a
worker process does without (docs/decisions/0011-no-torch-on-the-cpu.md).
"""

import logging
import re
import time
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray

from common import machine
from models import measure, selftest
from models.engines.base import Engine, Execution
from models.engines.cpu import CpuEngine
from models.variants import VARIANTS, VariantUnavailable
from service import logs
from service.settings import Settings, for_variant
from service.workers.status import Refusal, State, WorkerInfo

logger = logging.getLogger(__name__)

FOLDERS = re.compile(r"(?<!\w)/(?:[^\s/'\":]+/)*")
"""The folders of an absolute path. Clients are told the file's name only; the log has the whole path."""


class PrecisionAPI:
    """One variant. `setup` runs in the worker process; the HTTP process only holds the row and the settings.

    After `setup`, either `info` describes the loaded, warmed-up and self-tested engine, or `refusal` says why there is
    none.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        self.variant = VARIANTS[name]
        self.settings = settings
        self.max_batch_size = for_variant(settings.max_batch_size, name)
        self.threads = settings.threads or max(1, machine.available_cores() // settings.workers)
        self.refusal: Refusal | None = None
        self.info: WorkerInfo | None = None

    def setup(self, device: str) -> None:
        """Load on `device`: `cpu`, `cuda:N`, or empty to follow the variant's row."""
        self.place = device or None
        logs.configure(self.settings.log_level)
        try:
            self.engine, self.info = self._start()
        except VariantUnavailable as error:
            fault = gpu_fault(device)
            self.refusal = Refusal(State.FAILED, fault) if fault else Refusal(State.UNAVAILABLE, str(error))
        except Exception as error:
            logger.exception("%s did not start", self.variant.name)
            self.refusal = Refusal(State.FAILED, FOLDERS.sub("", f"{type(error).__name__}: {error}"))

    def _start(self) -> tuple[Engine, WorkerInfo]:
        began = time.perf_counter()
        engine = self.load_engine()
        loaded = time.perf_counter()
        # A shape is ready on the CPU once it has run, and the self-test runs most of them. A GPU captures its graphs
        # first, so that the self-test runs them.
        examined = self.examine(engine) if engine.device == "cpu" else None
        engine.warm_up(range(1, self.max_batch_size + 1))
        examined = examined or self.examine(engine)
        warmed = time.perf_counter()
        measured = {
            "device": engine.device,
            "load_seconds": loaded - began,
            "warmup_seconds": warmed - loaded,
            "full_batch_seconds": self._full_batch_seconds(engine),
            "selftest_agreement": examined.agreement,
            "sample": examined.sample,
            "memory_kind": engine.run(np.zeros((1, *self.settings.shape), np.uint8)).memory_kind,
            "activation_peaks": engine.activation_peaks,
            "clock_ratio": None if engine.device == "cpu" else selftest.clock_ratio(engine, self._test_size),
        }
        measure.release_unused()
        return engine, WorkerInfo(**asdict(engine.info) | measured)

    def _full_batch_seconds(self, engine: Engine) -> float:
        """Return the shortest time of a full batch: of those in the self-test, else of two that run here.

        The first full batch of clients may come long after the start.
        """
        if isinstance(engine, CpuEngine) and (seconds := engine.shortest_seconds.get(self.max_batch_size)):
            return seconds
        pixels = np.zeros((self.max_batch_size, *self.settings.shape), np.uint8)
        return min(engine.run(pixels).wall_seconds for _ in range(2))

    def load_engine(self) -> Engine:
        """Load the variant's engine, see `models.loading.load`."""
        from models.loading import load  # noqa: PLC0415 - the HTTP process runs no engine

        return load(
            self.variant.name,
            device=self.place,
            threads=self.threads,
            checkpoint=self.settings.checkpoint,
            preparation=self.settings.preparation,
            gpu_backend=self.settings.gpu_backend,
        )

    @property
    def _test_size(self) -> int:
        """Images per batch of the self-test: a size that is served, so that the test runs what will answer."""
        return min(selftest.BATCH_SIZE, for_variant(self.settings.max_batch_size, self.variant.name))

    def examine(self, engine: Engine) -> selftest.Examined:
        """Test the engine, see `models.selftest.examine`. On the CPU the test is the warm-up, too."""
        settings, sizes = self.settings, range(1, self.max_batch_size + 1)
        if isinstance(engine, CpuEngine):
            return selftest.examine(
                engine, settings.checkpoint, settings.preparation, lambda pixels: engine.warm_up_on(pixels, sizes)
            )
        classify = selftest.in_batches_of(engine, self._test_size)
        return selftest.examine(engine, settings.checkpoint, settings.preparation, classify)

    def predict(self, pixels: NDArray[np.uint8]) -> Execution:
        """Run `[N, 3, S, S] uint8` pixels as one batch."""
        return self.engine.run(pixels)


def gpu_fault(place: str) -> str:
    """Return why torch cannot use the GPU `cuda:N` that the driver counted; empty if it can, or `place` is no GPU."""
    if not place.startswith("cuda"):
        return ""
    import torch  # noqa: PLC0415 - torch belongs to the workers on a GPU

    if torch.cuda.is_available() and (torch.device(place).index or 0) < torch.cuda.device_count():
        return ""
    cuda = torch.version.cuda
    why = f"the driver is too old for CUDA {cuda}, or the GPU was lost" if cuda else "it is a build for the CPU"
    return (
        f"torch {torch.__version__} cannot use {place}, a GPU that the driver counted: {why}; "
        "an empty CUDA_VISIBLE_DEVICES serves without GPUs"
    )

"""The one LitAPI: every variant is an instance of it, told apart by its row in models.variants."""

import logging
import re
import time
from dataclasses import asdict
from typing import Any

import litserve
import numpy as np
from numpy.typing import NDArray

from common import machine
from models import selftest
from models.engines.base import Engine, Execution
from models.variants import VARIANTS, VariantUnavailable
from service import logs
from service.settings import Settings, for_variant
from service.workers.loop import SocketLoop

logger = logging.getLogger(__name__)

FOLDERS = re.compile(r"(?<!\w)/(?:[^\s/'\":]+/)*")
"""What precedes the name in an absolute path: clients are told why, not where; the log has it whole."""


class PrecisionAPI(litserve.LitAPI):  # type: ignore[misc]
    """One variant. `setup` runs in the worker process; the HTTP process only holds the row and the settings.

    After `setup`, either `card` describes the loaded, warmed-up and self-tested engine, or `refusal` says why there is
    none: `{"state": "unavailable" | "failed", "reason": ...}`. `unavailable` is what this machine can never run.
    """

    def __init__(self, name: str, settings: Settings) -> None:
        limit = for_variant(settings.max_batch_size, name)
        super().__init__(max_batch_size=limit, api_path=f"/predict/{name}", loop=SocketLoop())
        self.variant = VARIANTS[name]
        self.settings = settings
        self.threads = settings.threads or max(1, machine.available_cores() // settings.workers)
        self.refusal: dict[str, str] | None = None
        self.card: dict[str, Any] = {}

    def setup(self, device: str) -> None:
        """Load on `device`: `cpu`, `cuda:N`, or empty for the rule of the variant's row."""
        self.place = device or None
        logs.configure(self.settings.log_level)
        try:
            self.engine, self.card = self._start()
        except VariantUnavailable as error:
            fault = gpu_fault(device)
            self.refusal = {"state": "failed" if fault else "unavailable", "reason": fault or str(error)}
        except Exception as error:
            logger.exception("%s did not start", self.variant.name)
            self.refusal = {"state": "failed", "reason": FOLDERS.sub("", f"{type(error).__name__}: {error}")}

    def _start(self) -> tuple[Engine, dict[str, Any]]:
        began = time.perf_counter()
        engine = self.load_engine()
        loaded = time.perf_counter()
        engine.warm_up(range(1, self.max_batch_size + 1))
        warmed = time.perf_counter()
        card = asdict(engine.info) | {
            "device": engine.device,
            "load_seconds": loaded - began,
            "warmup_seconds": warmed - loaded,
            "selftest_agreement": self.agreement(engine),
            "memory_kind": engine.run(np.zeros((1, 3, self.settings.side, self.settings.side), np.uint8)).memory_kind,
            "activation_peaks": engine.activation_peaks,
        }
        if engine.device != "cpu":
            card["clock_ratio"] = selftest.clock_ratio(engine, self._test_size)
        return engine, card

    def load_engine(self) -> Engine:
        from models.loading import load  # noqa: PLC0415 - torch belongs to the processes that run engines

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
        """Images per batch of the self-test: a size that is served, so that what is tested is what will answer."""
        return min(selftest.BATCH_SIZE, for_variant(self.settings.max_batch_size, self.variant.name))

    def agreement(self, engine: Engine) -> float:
        """See `models.selftest.agreement`."""
        settings = self.settings
        return selftest.agreement(engine, settings.checkpoint, settings.preparation, self._test_size)

    def predict(self, pixels: NDArray[np.uint8]) -> Execution:
        """Run `[N, 3, S, S] uint8` pixels as one batch."""
        return self.engine.run(pixels)


def gpu_fault(place: str) -> str:
    """Why torch cannot use the GPU `cuda:N`, which the driver counted; empty where it can, or `place` is no GPU."""
    import torch  # noqa: PLC0415 - torch belongs to the processes that run engines

    if not place.startswith("cuda"):
        return ""
    if torch.cuda.is_available() and (torch.device(place).index or 0) < torch.cuda.device_count():
        return ""
    cuda = torch.version.cuda
    why = f"the driver is too old for CUDA {cuda}, or the GPU was lost" if cuda else "it is a build for the CPU"
    return (
        f"torch {torch.__version__} cannot use {place}, a GPU that the driver counted: {why}; "
        "an empty CUDA_VISIBLE_DEVICES serves without GPUs"
    )

"""The end of a command that fails: one sentence on stderr and status 1."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from models.cifar10 import DatasetError
from models.engines.base import EngineError
from models.files import CheckpointError
from models.variants import VariantUnavailable

EXPECTED = (
    DatasetError, CheckpointError, VariantUnavailable, EngineError, OSError, MemoryError, ValueError, RuntimeError,
)  # fmt: skip
"""Errors of files, flags, the disk and the machine. torch and OpenVINO raise RuntimeError when memory runs out."""


@contextmanager
def one_sentence() -> Iterator[None]:
    """End the process with `error: REASON` and status 1 if the block raises one of EXPECTED."""
    try:
        yield
    except EXPECTED as error:
        sys.exit(f"error: {' '.join(str(error).split()) or type(error).__name__}")

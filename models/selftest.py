"""Whether a loaded engine gives the answers it should: checked on the bundled sample before anyone is served."""

import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import checkpoint, cifar10
from models.engines.base import IMAGE_SHAPE, Engine

BATCH_SIZE = 50
SUFFIX = ".sample.npz"
MINIMUM_AGREEMENT = {
    "fp32": 0.995, "fp16": 0.99, "int8": 0.96, "fp32-cpu": 0.995, "int8-dynamic": 0.98, "fp32-tf32": 0.99, "bf16": 0.97,
}  # fmt: skip
"""Least share of the 300 images with the reference's top-1 class: room for a tie or two, none for a broken precision.
INT8 agrees on 98.5 % or more of the test set; 0.96 is more than three standard deviations of 300 draws below that."""


class SelfTestFailed(Exception):
    """The engine disagrees with the stored FP32 logits, or there are none for its checkpoint."""


def reference(path: Path | None, sha256: str) -> NDArray[np.float32]:
    """`[300, 10]` logits of the plain FP32 network on the bundled sample, for the checkpoint with this SHA-256.

    Raises:
        SelfTestFailed: there are none beside the checkpoint `path` (None: `checkpoint.default_path()`).
    """
    place = checkpoint.beside(path or checkpoint.default_path(), SUFFIX)
    again = "run `python -m models.sample --checkpoint FILE` to store those of this checkpoint"
    try:
        with np.load(io.BytesIO(place.read_bytes())) as content:
            found, logits = str(content["checkpoint_sha256"]), content["logits"]
    except FileNotFoundError:
        raise SelfTestFailed(f"{place} is missing: the self-test needs reference logits; {again}") from None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise SelfTestFailed(f"{place} cannot be read ({error}); {again}") from error
    if found != sha256:
        raise SelfTestFailed(f"{place} belongs to the checkpoint {found[:12]}, not to {sha256[:12]}; {again}")
    return np.asarray(logits, np.float32)


def clock_ratio(engine: Engine, batch_size: int = BATCH_SIZE, runs: int = 20) -> float:
    """The device's clock over the host's, for whole batches: CUDA events divided by the synchronised wall clock.

    Below 1 by what launching and waiting cost; above 1 would be a clock that cannot be trusted. On the CPU there is one
    clock, and the ratio says nothing.
    """
    pixels = np.zeros((batch_size, *IMAGE_SHAPE), np.uint8)
    done = [engine.run(pixels) for _ in range(runs)]
    by_device = sum(run.copy_in_seconds + run.inference_seconds + run.copy_out_seconds for run in done)
    return by_device / sum(run.wall_seconds for run in done)


def agreement(engine: Engine, path: Path | None = None, batch_size: int = BATCH_SIZE) -> float:
    """The share (0 to 1) of the bundled sample on which the engine's top-1 class is the reference's.

    Args:
        engine: as `models.variants.load` gave it.
        path: the checkpoint, or the INT8 artifact, that it was loaded from; None takes `checkpoint.default_path()`.
        batch_size: images per batch; on a GPU a size that was warmed up, so that what is tested is what will serve.

    Raises:
        SelfTestFailed: it is below MINIMUM_AGREEMENT, a logit is not finite, or there is no reference.
    """
    expected = reference(path, engine.card.checkpoint_sha256)
    images, _ = cifar10.sample()
    logits = np.concatenate([engine.run(images[i : i + batch_size]).logits for i in range(0, len(images), batch_size)])
    if not np.isfinite(logits).all():
        raise SelfTestFailed(f"{engine.variant.name} gives logits that are not finite on {engine.card.device_name}")
    share = float((logits.argmax(1) == expected.argmax(1)).mean())
    if share < (least := MINIMUM_AGREEMENT[engine.variant.name]):
        raise SelfTestFailed(
            f"{engine.variant.name} agrees with the FP32 reference on {share:.1%} of the sample, at least {least:.1%} "
            f"expected (backend {engine.card.backend}, {engine.card.isa})"
        )
    return share

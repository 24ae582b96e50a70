"""Whether a loaded engine gives the answers it should: checked on the bundled sample before anyone is served."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import cifar10, files, preprocess
from models.card import AS_IT_SAYS, Preparation
from models.engines.base import Engine, EngineInfo, image_shape
from models.reference import BUNDLED_INPUT, SUFFIX, SelfTestFailed, made_reference, reference
from models.topology import Input

BATCH_SIZE = 50
Logits = NDArray[np.float32]
MINIMUM_SQNR = 10
"""Least ratio in dB of the FP32 logits to an engine's distance from them: 20 to 40 for INT8, none if broken."""
MINIMUM_AGREEMENT = {
    "fp32": 0.995, "fp16": 0.99, "int8": 0.96, "fp32-cpu": 0.995, "int8-dynamic": 0.98, "fp32-tf32": 0.99, "bf16": 0.97,
}  # fmt: skip
"""Least share of the 300 images with the reference's top-1 class: room for a tie or two, none for a broken precision.
INT8 agrees on 98.5 % or more of the test set; 0.96 is more than three standard deviations of 300 draws below that."""


def clock_ratio(engine: Engine, batch_size: int = BATCH_SIZE, runs: int = 20) -> float:
    """The device's clock over the host's, for whole batches: CUDA events divided by the synchronised wall clock.

    Below 1 by what launching and waiting cost; above 1 would be a clock that cannot be trusted. On the CPU there is one
    clock, and the ratio says nothing.
    """
    pixels = np.zeros((batch_size, *image_shape(engine.info)), np.uint8)
    done = [engine.run(pixels) for _ in range(runs)]
    by_device = sum(run.copy_in_seconds + run.inference_seconds + run.copy_out_seconds for run in done)
    return by_device / sum(run.wall_seconds for run in done)


def agreement(
    engine: Engine,
    path: Path | None = None,
    preparation: Preparation = AS_IT_SAYS,
    batch_size: int = BATCH_SIZE,
) -> float:
    """The share (0 to 1) of the bundled sample on which the engine's top-1 class is the reference's.

    Args:
        engine: as `models.variants.load` gave it.
        path: the checkpoint, or the INT8 artifact, that it was loaded from; None takes `files.default_path()`.
        preparation: what it was loaded with.
        batch_size: images per batch; on a GPU a size that was warmed up, so that what is tested is what will serve.

    Raises:
        SelfTestFailed: it is below MINIMUM_AGREEMENT (of a network that does not know the sample's classes: the noise
            is above MINIMUM_SQNR), a logit is not finite, or there is no reference.
    """
    path, info = path or files.default_path(), engine.info
    taken, beside = Input(info.input_size, info.mean, info.std), files.beside(path, SUFFIX)
    is_artifact = path.name.endswith(files.ARTIFACT_SUFFIX)  # FP32 logits cannot be computed from it
    if is_artifact or (taken == BUNDLED_INPUT and (path == files.BUNDLED or beside.exists())):
        expected = reference(path, info.checkpoint_sha256, taken)
    else:
        expected = made_reference(path, info, preparation)
    images, labels = cifar10.sample()
    pixels = preprocess.resized(images, info.input_size)
    logits = np.concatenate([engine.run(pixels[i : i + batch_size]).logits for i in range(0, len(pixels), batch_size)])
    if not np.isfinite(logits).all():
        raise SelfTestFailed(f"{info.variant} gives logits that are not finite on {info.device_name}")
    share = float((logits.argmax(1) == expected.argmax(1)).mean())
    _judge(info, share, expected, logits, knows_the_sample=(expected.argmax(1) == labels).mean() > 0.5)
    return share


def _judge(info: EngineInfo, share: float, expected: Logits, logits: Logits, *, knows_the_sample: np.bool_) -> None:
    """Agreement means something only where the FP32 network knows the images; elsewhere classes are near ties."""
    where = f"(backend {info.backend}, {info.isa})"
    if knows_the_sample and share < (least := MINIMUM_AGREEMENT[info.variant]):
        raise SelfTestFailed(
            f"{info.variant} agrees with the FP32 reference on {share:.1%} of the sample, at least {least:.1%} "
            f"expected {where}"
        )
    noise = float(((logits - expected) ** 2).sum())
    if noise * 10 ** (MINIMUM_SQNR / 10) > float((expected**2).sum()):
        raise SelfTestFailed(
            f"{info.variant}'s logits are too far from the FP32 reference's: the noise is less than {MINIMUM_SQNR} dB "
            f"below the signal {where}"
        )

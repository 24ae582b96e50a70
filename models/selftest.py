"""The self-test: a loaded engine must agree with the FP32 reference on the bundled sample before it serves anyone."""

from collections.abc import Iterable, Iterator
from itertools import cycle
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import cifar10, files, preprocess
from models.card import AS_IT_SAYS, Preparation
from models.engines.base import Engine, EngineInfo, image_shape
from models.logits import Logits, sqnr
from models.logits import agreement as share_of
from models.reference import BUNDLED_INPUT, SUFFIX, SelfTestFailed, made_reference, reference
from models.topology import Input
from models.variants import VARIANTS

BATCH_SIZE = 50
"""Images per batch unless a caller says otherwise."""
LEAST_SQNR = 10
"""Least SQNR in dB of an engine's logits against the FP32 reference: INT8 has 20 to 40, a broken engine less than 0."""


def clock_ratio(engine: Engine, batch_size: int = BATCH_SIZE, runs: int = 20) -> float:
    """Return the time of whole batches by CUDA events, divided by their time on the host's synchronised clock.

    It is below 1, because the host's clock includes launching and waiting; above 1 one of the clocks is wrong. On the
    CPU there is only one clock, so the ratio means nothing.
    """
    pixels = np.zeros((batch_size, *image_shape(engine.info)), np.uint8)
    done = [engine.run(pixels) for _ in range(runs)]
    by_device = sum(run.copy_in_seconds + run.inference_seconds + run.copy_out_seconds for run in done)
    return by_device / sum(run.wall_seconds for run in done)


def agreement(
    engine: Engine,
    path: Path | None = None,
    preparation: Preparation = AS_IT_SAYS,
    batch_sizes: Iterable[int] = (BATCH_SIZE,),
) -> float:
    """Return the share (0 to 1) of the bundled sample on which the engine's top-1 class is the reference's.

    Args:
        engine: a loaded variant.
        path: the checkpoint, or the INT8 artifact, that it was loaded from; None takes `files.default_path()`.
        preparation: the one that it was loaded with.
        batch_sizes: images per batch, in turn. On a GPU use a size that was warmed up, so that the test runs the CUDA
            graph that will serve.

    Raises:
        SelfTestFailed: the share is below the variant's `least_agreement` (checked if the network knows the sample's
            classes), the SQNR is below LEAST_SQNR, a logit is not finite, or there is no reference.
    """
    path, info = path or files.default_path(), engine.info
    inputs, beside = Input(info.input_size, info.mean, info.std), files.beside(path, SUFFIX)
    is_artifact = path.name.endswith(files.ARTIFACT_SUFFIX)  # FP32 logits cannot be computed from it
    if is_artifact or (inputs == BUNDLED_INPUT and (path == files.BUNDLED or beside.exists())):
        expected = reference(path, info.checkpoint_sha256, inputs)
    else:
        expected = made_reference(path, info, preparation)
    images, labels = cifar10.sample()
    pixels = preprocess.resized(images, info.input_size)
    logits = np.concatenate([engine.run(batch).logits for batch in in_batches(pixels, batch_sizes)])
    if not np.isfinite(logits).all():
        raise SelfTestFailed(f"{info.variant} gives logits that are not finite on {info.device_name}")
    share = share_of(expected, logits)
    _judge(info, share, expected, logits, knows_the_sample=(expected.argmax(1) == labels).mean() > 0.5)
    return share


def in_batches(pixels: NDArray[np.uint8], sizes: Iterable[int]) -> Iterator[NDArray[np.uint8]]:
    """Yield the images in batches of these sizes, which begin anew after the last; the last batch may be smaller."""
    first = 0
    for size in cycle(sizes):
        if first >= len(pixels):
            return
        yield pixels[first : first + size]
        first += size


def _judge(info: EngineInfo, share: float, expected: Logits, logits: Logits, *, knows_the_sample: np.bool_) -> None:
    """Raise SelfTestFailed for a bad engine.

    Agreement is judged only if the FP32 network knows the images: for a network that does not, classes are near ties.
    """
    where = f"(backend {info.backend}, {info.isa})"
    if knows_the_sample and share < (least := VARIANTS[info.variant].least_agreement):
        raise SelfTestFailed(
            f"{info.variant} agrees with the FP32 reference on {share:.1%} of the sample, at least {least:.1%} "
            f"expected {where}"
        )
    ratio = sqnr(expected, logits)
    if ratio is not None and ratio < LEAST_SQNR:
        raise SelfTestFailed(
            f"{info.variant}'s logits are too far from the FP32 reference's: an SQNR of {ratio:.1f} dB, at least "
            f"{LEAST_SQNR} dB expected {where}"
        )

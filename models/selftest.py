"""The self-test: a loaded engine must agree with the FP32 reference on a sample before it serves anyone.

Where the sample has labels, the same logits tell the accuracy, see `models.accuracy`.
"""

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import accuracy, cifar10, files, preprocess
from models.accuracy import Assumption, SampleAccuracy
from models.card import AS_IT_SAYS, Card, Preparation, read_card
from models.engines.base import Engine, EngineInfo, image_shape, in_batches
from models.logits import Logits, sqnr
from models.logits import agreement as share_of
from models.reference import SUFFIX, SelfTestFailed, made_reference, reference
from models.sample import Labelled, labelled_sample
from models.topology import Input
from models.variants import VARIANTS

logger = logging.getLogger(__name__)

BATCH_SIZE = 50
"""Images per batch unless a caller says otherwise."""
Classify = Callable[[NDArray[np.uint8]], Logits]
"""`[N, 3, S, S] uint8` to `[N, classes] float32`, for more images than fit one batch."""
LEAST_SQNR = 10
"""Least SQNR in dB of an engine's logits against the FP32 reference: INT8 has 20 to 40, a broken engine less than 0."""


@dataclass(frozen=True)
class Examined:
    """The result of a self-test that an engine passed."""

    agreement: float
    """Share (0 to 1) of the sample on which the engine's top-1 class is the FP32 reference's."""
    sample: SampleAccuracy | None
    """The accuracy on the sample; None if it has no labels for this network."""


def clock_ratio(engine: Engine, batch_size: int = BATCH_SIZE, runs: int = 20) -> float:
    """Return the time of whole batches by CUDA events, divided by their time on the host's synchronised clock.

    It is below 1, because the host's clock includes launching and waiting; above 1 one of the clocks is wrong. On the
    CPU there is only one clock, so the ratio means nothing.
    """
    pixels = np.zeros((batch_size, *image_shape(engine.info)), np.uint8)
    done = [engine.run(pixels) for _ in range(runs)]
    by_device = sum(run.copy_in_seconds + run.inference_seconds + run.copy_out_seconds for run in done)
    return by_device / sum(run.wall_seconds for run in done)


def in_batches_of(engine: Engine, size: int = BATCH_SIZE) -> Classify:
    """Return a function that runs the engine on images in batches of this size.

    On a GPU use a size that was warmed up, so that the test runs the CUDA graph that will serve.
    """
    return lambda pixels: np.concatenate([engine.run(batch).logits for batch in in_batches(pixels, [size])])


def examine(
    engine: Engine,
    path: Path | None = None,
    preparation: Preparation = AS_IT_SAYS,
    classify: Classify | None = None,
) -> Examined:
    """Run an engine on a sample: the checkpoint's own, or else the bundled one, whose labels it may not know.

    Args:
        engine: a loaded variant.
        path: the checkpoint, or the INT8 artifact, that it was loaded from; None takes `files.default_path()`.
        preparation: the one that it was loaded with.
        classify: runs the engine on the sample; None takes `in_batches_of(engine)`.

    Raises:
        SelfTestFailed: the share is below the variant's `least_agreement` (checked if the network knows the sample's
            classes), the SQNR is below LEAST_SQNR, a logit is not finite, or there is no reference.
    """
    path, info = files.resolve(path or files.default_path()), engine.info
    card = read_card(path)
    labelled = labelled_sample(path, replace(card, classes=info.classes))
    sample = labelled or Labelled(*cifar10.sample(), cifar10.CLASSES, cifar10.SAMPLE.name)
    expected = _expected(path, info, card, preparation, sample)
    pixels = preprocess.resized(sample.images, info.input_size, info.resize)
    logits = (classify or in_batches_of(engine))(pixels)
    if not np.isfinite(logits).all():
        raise SelfTestFailed(f"{info.variant} gives logits that are not finite on {info.device_name}")
    judged, labels = logits[: len(expected)], sample.labels[: len(expected)]
    share = share_of(expected, judged)
    _judge(info, share, expected, judged, knows_the_sample=(expected.argmax(1) == labels).mean() > 0.5)
    assumed = accuracy.assumptions(info, card, preparation)
    return Examined(share, _measured(info, card, labelled, logits, assumed) if labelled else None)


def _expected(
    path: Path, info: EngineInfo, card: Card, preparation: Preparation, sample: Labelled
) -> NDArray[np.float32]:
    """Return the reference logits on the sample: those beside the checkpoint, or new ones where flags change its card.

    The logits beside an INT8 artifact are its only reference, because FP32 logits cannot be computed from it.
    """
    beside, is_artifact = files.beside(path, SUFFIX), path.name.endswith(files.ARTIFACT_SUFFIX)
    is_as_stored = replace(preparation, classes=None).over(card) == card and (path == files.BUNDLED or beside.exists())
    if not (is_artifact or is_as_stored):
        return made_reference(path, info, preparation, sample.images)
    expected = reference(path, info.checkpoint_sha256, Input(info.input_size, info.mean, info.std, info.resize))
    if len(expected) != len(sample.images):
        raise SelfTestFailed(f"{beside} has logits of {len(expected)} images, and {sample.source} {len(sample.images)}")
    return expected


def _measured(
    info: EngineInfo, card: Card, labelled: Labelled, logits: Logits, assumed: Sequence[Assumption]
) -> SampleAccuracy:
    """Return the accuracy by an engine's logits on labelled images, and log it, loudly if it is suspect."""
    found = accuracy.judged(logits, labelled.labels, card.test_accuracy, labelled.source, assumed)
    logger.log(logging.WARNING if found.warning else logging.INFO, "%s: %s", info.variant, found)
    return found


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

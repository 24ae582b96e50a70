"""Whether a loaded engine gives the answers it should: checked on the bundled sample before anyone is served."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import cache, checkpoint, cifar10, preprocess
from models.checkpoint import Preparation
from models.engines.base import Engine, EngineCard, image_shape
from models.topology import Input

BATCH_SIZE = 50
BUNDLED_INPUT = Input()
UNREADABLE = (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile)
Logits = NDArray[np.float32]
MINIMUM_SQNR = 10
"""Least ratio in dB of the FP32 logits to an engine's distance from them: 20 to 40 for INT8, none if broken."""
SUFFIX = ".sample.npz"
MINIMUM_AGREEMENT = {
    "fp32": 0.995, "fp16": 0.99, "int8": 0.96, "fp32-cpu": 0.995, "int8-dynamic": 0.98, "fp32-tf32": 0.99, "bf16": 0.97,
}  # fmt: skip
"""Least share of the 300 images with the reference's top-1 class: room for a tie or two, none for a broken precision.
INT8 agrees on 98.5 % or more of the test set; 0.96 is more than three standard deviations of 300 draws below that."""


class SelfTestFailed(Exception):
    """The engine disagrees with the stored FP32 logits, or there are none for its checkpoint."""


def reference(path: Path | None, sha256: str, taken: Input = BUNDLED_INPUT) -> NDArray[np.float32]:
    """`[300, 10]` stored logits of the plain FP32 network on the bundled sample, for the checkpoint with this SHA-256.

    Raises:
        SelfTestFailed: there are none beside the checkpoint `path` (None: `checkpoint.default_path()`).
    """
    place = checkpoint.beside(path or checkpoint.default_path(), SUFFIX)
    again = "run `python -m models.sample --checkpoint FILE` to store those of this checkpoint"
    try:
        found, stored, logits = _unpacked(place.read_bytes())
    except FileNotFoundError:
        raise SelfTestFailed(f"{place} is missing: the self-test needs reference logits; {again}") from None
    except UNREADABLE as error:
        raise SelfTestFailed(f"{place} cannot be read ({error}); {again}") from error
    if found != sha256:
        raise SelfTestFailed(f"{place} belongs to the checkpoint {found[:12]}, not to {sha256[:12]}; {again}")
    if stored != taken:
        raise SelfTestFailed(f"{place} is of images as {stored}, not as {taken}; {again}")
    return logits


def clock_ratio(engine: Engine, batch_size: int = BATCH_SIZE, runs: int = 20) -> float:
    """The device's clock over the host's, for whole batches: CUDA events divided by the synchronised wall clock.

    Below 1 by what launching and waiting cost; above 1 would be a clock that cannot be trusted. On the CPU there is one
    clock, and the ratio says nothing.
    """
    pixels = np.zeros((batch_size, *image_shape(engine.card)), np.uint8)
    done = [engine.run(pixels) for _ in range(runs)]
    by_device = sum(run.copy_in_seconds + run.inference_seconds + run.copy_out_seconds for run in done)
    return by_device / sum(run.wall_seconds for run in done)


def _unpacked(data: bytes) -> tuple[str, Input, NDArray[np.float32]]:
    """The checkpoint's SHA-256, what images it took, and the logits, as `models.sample` packed them."""
    with np.load(io.BytesIO(data)) as content:
        taken = Input.of(json.loads(str(content["input"]))) if "input" in content else BUNDLED_INPUT
        return str(content["checkpoint_sha256"]), taken, np.asarray(content["logits"], np.float32)


def made_reference(path: Path, card: EngineCard, preparation: Preparation) -> NDArray[np.float32]:
    """What `reference` gives, for a checkpoint that came without: computed, and kept for the next start."""
    from models import sample  # noqa: PLC0415 - brings torch, and most checkpoints need none of it

    images, _ = cifar10.sample()
    depends_on = {"input_size": card.input_size, "mean": card.mean, "std": card.std, "torch": card.torch}
    depends_on |= {"images": checkpoint.sha256(images.tobytes())}
    place = cache.place("reference", ".npz", checkpoint=card.checkpoint_sha256, **depends_on)
    try:
        return _unpacked(place.read_bytes())[2]
    except UNREADABLE:
        data = sample.packed_logits(*checkpoint.load(path, preparation), images)
    cache.store(place, data)
    return _unpacked(data)[2]


def agreement(
    engine: Engine,
    path: Path | None = None,
    preparation: Preparation = checkpoint.AS_IT_SAYS,
    batch_size: int = BATCH_SIZE,
) -> float:
    """The share (0 to 1) of the bundled sample on which the engine's top-1 class is the reference's.

    Args:
        engine: as `models.variants.load` gave it.
        path: the checkpoint, or the INT8 artifact, that it was loaded from; None takes `checkpoint.default_path()`.
        preparation: what it was loaded with.
        batch_size: images per batch; on a GPU a size that was warmed up, so that what is tested is what will serve.

    Raises:
        SelfTestFailed: it is below MINIMUM_AGREEMENT (of a network that does not know the sample's classes: the noise
            is above MINIMUM_SQNR), a logit is not finite, or there is no reference.
    """
    path, card = path or checkpoint.default_path(), engine.card
    taken, beside = Input(card.input_size, card.mean, card.std), checkpoint.beside(path, SUFFIX)
    is_artifact = path.name.endswith(checkpoint.ARTIFACT_SUFFIX)  # FP32 logits cannot be computed from it
    if is_artifact or (taken == BUNDLED_INPUT and (path == checkpoint.BUNDLED or beside.exists())):
        expected = reference(path, card.checkpoint_sha256, taken)
    else:
        expected = made_reference(path, card, preparation)
    images, labels = cifar10.sample()
    pixels = preprocess.resized(images, card.input_size)
    logits = np.concatenate([engine.run(pixels[i : i + batch_size]).logits for i in range(0, len(pixels), batch_size)])
    if not np.isfinite(logits).all():
        raise SelfTestFailed(f"{card.variant} gives logits that are not finite on {card.device_name}")
    share = float((logits.argmax(1) == expected.argmax(1)).mean())
    _judge(card, share, expected, logits, knows_the_sample=(expected.argmax(1) == labels).mean() > 0.5)
    return share


def _judge(card: EngineCard, share: float, expected: Logits, logits: Logits, *, knows_the_sample: np.bool_) -> None:
    """Agreement means something only where the FP32 network knows the images; elsewhere classes are near ties."""
    where = f"(backend {card.backend}, {card.isa})"
    if knows_the_sample and share < (least := MINIMUM_AGREEMENT[card.variant]):
        raise SelfTestFailed(
            f"{card.variant} agrees with the FP32 reference on {share:.1%} of the sample, at least {least:.1%} "
            f"expected {where}"
        )
    noise = float(((logits - expected) ** 2).sum())
    if noise * 10 ** (MINIMUM_SQNR / 10) > float((expected**2).sum()):
        raise SelfTestFailed(
            f"{card.variant}'s logits are too far from the FP32 reference's: the noise is less than {MINIMUM_SQNR} dB "
            f"below the signal {where}"
        )

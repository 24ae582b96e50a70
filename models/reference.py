"""Reference logits: the oracle's logits on the bundled sample, kept beside a checkpoint. See `models.oracle`."""

import io
import json
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from models import checkpoint, files
from models.card import Preparation
from models.engines.base import EngineInfo
from models.oracle import packed_logits
from models.topology import Input, affordable

SUFFIX = ".sample.npz"
BUNDLED_INPUT = Input()
"""The images that the bundled checkpoint takes."""


class SelfTestFailed(Exception):
    """The engine disagrees with the reference logits, or its checkpoint has none."""


def reference(path: Path | None, sha256: str, inputs: Input = BUNDLED_INPUT) -> NDArray[np.float32]:
    """Return the `[N, classes]` reference logits beside the checkpoint `path` (None: `files.default_path()`).

    Raises:
        SelfTestFailed: there are none, or they belong to a checkpoint with another SHA-256 or to other images.
    """
    place = files.beside(path or files.default_path(), SUFFIX)
    again = "run `python -m models.sample --checkpoint FILE` to store those of this checkpoint"
    try:
        found, stored, logits = _unpacked(place.read_bytes())
    except FileNotFoundError:
        raise SelfTestFailed(f"{place} is missing: the self-test needs reference logits; {again}") from None
    except files.BROKEN_NPZ as error:
        raise SelfTestFailed(f"{place} cannot be read ({error}); {again}") from error
    if found != sha256:
        raise SelfTestFailed(f"{place} belongs to the checkpoint {found[:12]}, not to {sha256[:12]}; {again}")
    if stored != inputs:
        raise SelfTestFailed(f"{place} is for images as {stored}, not as {inputs}; {again}")
    return logits


def _unpacked(data: bytes) -> tuple[str, Input, NDArray[np.float32]]:
    """Return the checkpoint's SHA-256, the images that it takes, and the logits, from a file of `models.sample`."""
    with np.load(io.BytesIO(data)) as content:
        inputs = Input.of(json.loads(str(content["input"]))) if "input" in content else BUNDLED_INPUT
        return str(content["checkpoint_sha256"]), inputs, np.asarray(content["logits"], np.float32)


def made_reference(
    path: Path, info: EngineInfo, preparation: Preparation, images: NDArray[np.uint8]
) -> NDArray[np.float32]:
    """Return the reference logits of a checkpoint that has none: from the cache, or computed.

    They are of these images; of the first ones if the network is large.
    """
    fields = ("architecture", "input_size", "resize", "mean", "std")
    depends_on = {name: getattr(info, name) for name in fields} | {"numpy": np.__version__}
    depends_on |= {"images": files.sha256(images.tobytes())}
    place = files.place("reference", ".npz", checkpoint=info.checkpoint_sha256, **depends_on)
    if place:
        with suppress(*files.BROKEN_NPZ):  # not cached yet, or damaged
            return _unpacked(place.read_bytes())[2]
    state, card = checkpoint.load(path, preparation)
    plan = card.plan({name: array.shape for name, array in state.items()})
    data = packed_logits(state, card, images[: affordable(plan, len(images))])
    files.store(place, data)
    return _unpacked(data)[2]

"""An engine's logits on many images, kept on disk so that a stopped evaluation can continue."""

import hashlib
import io
from dataclasses import asdict, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from models import files, preprocess
from models.cifar10 import Images
from models.engines.base import Engine

PROBE = 8
"""Images whose logits identify an engine beyond its info: they differ with its kernels."""


def answer(engine: Engine, images: Images, batch_size: int, place: Path | None, title: str) -> NDArray[np.float32]:
    """Return the `[N, C]` logits of `[N, 3, H, W] uint8` images: read from `place` if it holds them, else computed.

    The images are resized, batch by batch, to the engine's input size.

    Args:
        engine: a loaded variant.
        images: any number of images.
        batch_size: images per forward.
        place: a .npz file, reused only for the same engine, machine, versions and images. None keeps nothing.
        title: the text of the progress bar.
    """
    key = identity(engine, images, batch_size)
    if place and (known := _read(place, key)) is not None:
        return known
    parts = []
    with tqdm(total=len(images), desc=title, unit="img", leave=False, disable=None) as bar:
        for start in range(0, len(images), batch_size):
            parts.append(_run(engine, images[start : start + batch_size]))
            bar.update(len(parts[-1]))
    logits = np.concatenate(parts)
    if place is None:
        return logits
    content = io.BytesIO()
    np.savez_compressed(content, logits=logits, key=np.array(key))
    place.parent.mkdir(parents=True, exist_ok=True)
    files.write(place, content.getvalue())
    return logits


def identity(engine: Engine, images: Images, batch_size: int) -> str:
    """Return a hash of everything that the logits depend on."""
    probe = _run(engine, images[:PROBE])
    info = asdict(replace(engine.info, notes=()))  # they name sizes of memory, which differ from start to start
    digest = hashlib.sha256(f"{sorted(info.items())} {batch_size} {images.shape}".encode())
    digest.update(probe.tobytes())
    digest.update(images.tobytes())
    return digest.hexdigest()


def _run(engine: Engine, images: Images) -> NDArray[np.float32]:
    return engine.run(
        np.ascontiguousarray(preprocess.resized(images, engine.info.input_size, engine.info.resize))
    ).logits


def _read(place: Path, key: str) -> NDArray[np.float32] | None:
    try:
        with np.load(io.BytesIO(place.read_bytes())) as content:
            return np.asarray(content["logits"], np.float32) if str(content["key"]) == key else None
    except files.BROKEN_NPZ:
        return None  # no file yet, or an incomplete one: compute again

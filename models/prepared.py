"""The folder that `python -m models.prepare` writes: its files, made from a network and pictures. Imports no torch."""

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from models import calibration
from models.calibrate import METHODS, calibrate
from models.calibration import Calibration
from models.card import Card
from models.checkpoint import State
from models.cifar10 import Images, sample
from models.engines.network import FoldedLayer
from models.evaluation.images import HELD_OUT
from models.files import CheckpointError
from models.oracle import packed_logits
from models.reference import SUFFIX as REFERENCE
from models.sample import IMAGES_SUFFIX, Labelled
from models.split import SUFFIX as SPLIT
from models.split import Split
from models.topology import Network

NAME = "model"
"""The name that the files share."""
SAMPLE = 300
"""The most images of the labelled sample, on which every start tests itself."""


@dataclass(frozen=True)
class Material:
    """A network and pictures, read and prepared."""

    network: Network[FoldedLayer]
    state: State
    weights: bytes
    """The content of a safetensors file."""
    card: Card
    split: Split
    calibrating: Images
    """`[N, 3, S, S] uint8`."""
    judging: Labelled | None
    """The held-out pictures; None for pictures without labels."""


def contents(material: Material) -> dict[str, bytes]:
    """Return the files of a prepared folder by name: all but the evaluation."""
    card, split, judging = material.card, material.split, material.judging
    ranges = calibrate(material.network, material.calibrating, METHODS[0], shows_progress=True)
    found = Calibration(card.sha256, METHODS[0], len(material.calibrating), split.seed, ranges, material.network.input)
    labelled = judging.first(SAMPLE) if judging else None
    tested = labelled.images if labelled else sample()[0]
    files = {
        ".safetensors": material.weights,
        ".json": card_json(card),
        calibration.SUFFIX: found.to_json(),
        REFERENCE: packed_logits(material.state, card, tested, shows_progress=True),
        SPLIT: split.to_json(),
    }
    if judging and labelled:
        files |= {IMAGES_SUFFIX: labelled.packed(), HELD_OUT: judging.packed()}
    return {NAME + suffix: content for suffix, content in files.items()}


def card_json(card: Card) -> bytes:
    """Return the content of a card's file."""
    return (json.dumps(asdict(card), indent=2) + "\n").encode()


@contextmanager
def new_folder(out: Path) -> Iterator[Path]:
    """Yield an empty folder beside `out` that becomes `out` at the end of the block; after an error nothing remains.

    Raises:
        CheckpointError: `out` exists already, and is not an empty folder.
    """
    if out.exists() and not (out.is_dir() and not any(out.iterdir())):
        raise CheckpointError(f"{out} exists already: name another folder with --out, or remove this one")
    partial = out.with_name(f"{out.name}.{os.getpid()}.partial")
    partial.mkdir(parents=True)
    try:
        yield partial
        partial.replace(out)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def put(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write files into a folder."""
    for name, content in contents.items():
        (folder / name).write_bytes(content)

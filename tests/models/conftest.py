"""The checkpoint under test, its engines, and a tiny data set in the official layout."""

import hashlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from common import machine
from models import cifar10, files, loading, reference
from models.card import Card, read_card
from models.engines.base import Engine, Execution
from models.variants import VARIANTS, native_variants

Load = Callable[[str], Engine]
NATIVE = native_variants(machine.usable_flags())
"""The variants that run because this CPU has special instructions; none on many machines."""
ON_CPU = tuple(name for name, row in VARIANTS.items() if row.cpu_builder and (not row.cpu_flags or name in NATIVE))
"""The variants that this CPU can run, some of them only for tests."""
SLOW = ("fp16", "bf16")
"""Variants that a CPU runs for tests only, slowly."""
Answers = Callable[[str], np.ndarray]


class Spoilt:
    """An engine whose logits a function spoils."""

    def __init__(self, engine: Engine, spoil: Callable[[np.ndarray], np.ndarray]) -> None:
        self.engine, self.spoil = engine, spoil
        self.variant, self.device, self.info = engine.variant, engine.device, engine.info

    def run(self, pixels: np.ndarray) -> Execution:
        done = self.engine.run(pixels)
        return replace(done, logits=self.spoil(done.logits))


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Use one thread: threads that wait for each other by spinning take twenty times as long on a busy machine."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint_path() -> Path:
    """Return the bundled checkpoint, or the one that CHECKPOINT names."""
    return files.default_path()


@pytest.fixture(scope="session")
def card(checkpoint_path: Path) -> Card:
    """Return the card of the checkpoint under test."""
    return read_card(checkpoint_path)


@pytest.fixture(scope="session")
def load(checkpoint_path: Path) -> Load:
    """Return a function that gives a variant's engine on the CPU, loaded once."""
    loaded: dict[str, Engine] = {}

    def get(name: str) -> Engine:
        if name not in loaded:
            loaded[name] = loading.load(name, device="cpu", threads=1, checkpoint=checkpoint_path)
        return loaded[name]

    return get


@pytest.fixture(scope="session")
def answers(load: Load, images: np.ndarray) -> Answers:
    """Return a function that gives a variant's logits on the sample, computed once; on 60 images for fp16 and bf16."""
    known: dict[str, np.ndarray] = {}

    def get(name: str) -> np.ndarray:
        if name not in known:
            known[name] = load(name).run(images[: 60 if name in SLOW else None]).logits
        return known[name]

    return get


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Return the bundled sample, `[300, 3, 32, 32] uint8`."""
    return cifar10.sample()[0]


@pytest.fixture(scope="session")
def golden(checkpoint_path: Path, card: Card) -> np.ndarray:
    """Return the `[300, 10]` reference logits: those of torchvision's network in FP32."""
    return reference.reference(checkpoint_path, card.sha256)


@pytest.fixture
def tiny_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a folder with 40 training and 20 test images of noise in the official layout, with matching hashes."""
    random = np.random.default_rng(7)
    folder = tmp_path / "data" / cifar10.FOLDER
    folder.mkdir(parents=True)
    hashes = {}
    for name in cifar10.SHA1:
        count = 20 if name.startswith("test") else 8
        records = random.integers(0, 256, (count, cifar10.BYTES_PER_IMAGE), dtype=np.uint8)
        records[:, 0] = np.arange(count) % 10
        (folder / name).write_bytes(records.tobytes())
        hashes[name] = hashlib.sha1(records.tobytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(cifar10, "SHA1", hashes)
    return tmp_path / "data"


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Return a folder with twelve images of the sample as PNG files."""
    folder = tmp_path / "pictures"
    folder.mkdir()
    for index, image in enumerate(cifar10.sample()[0][:12]):
        Image.fromarray(image.transpose(1, 2, 0)).save(folder / f"{index:02}.png")
    return folder

"""The checkpoint under test, its engines, and a tiny data set in the official layout."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from models import cifar10, files, loading, reference, variants
from models.card import Card, read_card
from models.engines.base import Engine

Load = Callable[[str], Engine]
ON_CPU = tuple(name for name, row in variants.VARIANTS.items() if row.dtype != "tf32")
"""The variants that a CPU can run, if only for tests, on the backend that is the default."""
FP32_CPU = tuple(f"fp32-cpu/{backend}" for backend in variants.CPU_BACKENDS)
INT8 = tuple(f"int8/{backend}" for backend in variants.CPU_BACKENDS)
Answers = Callable[[str], np.ndarray]


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two threads of a pool wait for each other by spinning, which on a busy machine takes twenty times as long."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def checkpoint_path() -> Path:
    """The bundled checkpoint, or the one that CHECKPOINT names."""
    return files.default_path()


@pytest.fixture(scope="session")
def card(checkpoint_path: Path) -> Card:
    return read_card(checkpoint_path)


@pytest.fixture(scope="session")
def load(checkpoint_path: Path) -> Load:
    """Gives the engine of `variant` or `variant/backend`, loaded once; fp16 and bf16 on the CPU, too."""
    loaded: dict[str, Engine] = {}

    def get(name: str) -> Engine:
        if name not in loaded:
            variant, _, backend = name.partition("/")
            loaded[name] = loading.load(
                variant, device="cpu", threads=1, checkpoint=checkpoint_path, cpu_backend=backend or None
            )
        return loaded[name]

    return get


@pytest.fixture(scope="session")
def answers(load: Load, images: np.ndarray) -> Answers:
    """Gives a variant's logits on the sample, computed once; fp16 and bf16, slow on a CPU, on the first 60."""
    known: dict[str, np.ndarray] = {}

    def get(name: str) -> np.ndarray:
        if name not in known:
            known[name] = load(name).run(images[: 60 if name in ("fp16", "bf16") else None]).logits
        return known[name]

    return get


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """`[300, 3, 32, 32] uint8`."""
    return cifar10.sample()[0]


@pytest.fixture(scope="session")
def golden(checkpoint_path: Path, card: Card) -> np.ndarray:
    """`[300, 10]` logits of the plain torchvision network."""
    return reference.reference(checkpoint_path, card.sha256)


@pytest.fixture
def tiny_dataset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """40 training and 20 test images of noise in the official layout, with the hashes to match."""
    random = np.random.default_rng(7)
    folder = tmp_path / "data" / cifar10.FOLDER
    folder.mkdir(parents=True)
    hashes = {}
    for name in cifar10.SHA1:
        count = 20 if name.startswith("test") else 8
        records = random.integers(0, 256, (count, cifar10.RECORD), dtype=np.uint8)
        records[:, 0] = np.arange(count) % 10
        (folder / name).write_bytes(records.tobytes())
        hashes[name] = hashlib.sha1(records.tobytes(), usedforsecurity=False).hexdigest()
    monkeypatch.setattr(cifar10, "SHA1", hashes)
    return tmp_path / "data"

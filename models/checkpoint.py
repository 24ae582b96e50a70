"""Checkpoints: a file of weights and its card, verified by SHA-256 at every load. Nothing but tensors is unpickled.

A checkpoint is `NAME.safetensors`, or `NAME.pt` (a pickled state dict, read with `weights_only`), and `NAME.json`, its
card, which only the bundled one has to have. What is derived from it lies beside it: `NAME.int8.json` (calibration),
`NAME.sample.npz` (its logits on the bundled sample), `NAME.evaluation.json` (how good the variants are). The one in use
is the bundled one unless an argument (`--checkpoint`) or the environment variable CHECKPOINT names another. Imports no
torch.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import pickle
import struct
import warnings
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from models import cifar10
from models.topology import STEMS, Input, detect

if TYPE_CHECKING:
    from torch import Tensor, nn

WEIGHTS = Path(__file__).parent / "weights"
ARTIFACT_SUFFIX = ".int8.safetensors"
"""How the name of an INT8 artifact ends."""
BUNDLED = WEIGHTS / "resnet18_cifar10.safetensors"
SUFFIXES = (ARTIFACT_SUFFIX, ".safetensors", ".pth.tar", ".pth", ".pt", ".ckpt")
"""What may follow the name that a checkpoint shares with the files derived from it; a name may have dots itself."""
NOT_TORCHS = (
    pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, IndexError, TypeError, AttributeError,
    AssertionError, struct.error,
)  # fmt: skip
"""What torch.load raises for files that are damaged or of another kind."""

State = dict[str, NDArray[np.float32]]
"""A state dict as arrays, keyed as torch's."""


class CheckpointError(Exception):
    """Weights, or something derived from them, are missing, damaged or do not belong together."""


@dataclass(frozen=True)
class Card:
    """Where a checkpoint comes from, what images it takes and how good it is. What nobody said is None."""

    command: str | None = None
    recipe: dict[str, Any] | None = None
    seed: int | None = None
    epochs: int | None = None
    hardware: str | None = None
    training_seconds: int | None = None
    test_accuracy: float | None = None
    """Top-1 (0 to 1) of the plain FP32 network on the `test_images` first official test images."""
    test_images: int | None = None
    note: str | None = None
    """What a reader should know besides: how the accuracy came about, what is still owed."""
    torch: str | None = None
    date: str | None = None
    """ISO 8601, UTC."""
    architecture: str | None = None
    started_from: dict[str, Any] | None = None
    """The card of the checkpoint that the training went on from."""
    classes: tuple[str, ...] = cifar10.CLASSES
    input_size: int | None = None
    """Height and width in pixels of the images it takes."""
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    """Of each channel of the images, on the scale 0 to 1."""
    sha256: str = ""
    """Of the file. For an INT8 artifact, of the checkpoint that it was made from."""
    bytes: int = 0

    def taken(self, stem: str) -> Input:
        """What images the checkpoint takes, when its stem is this one of `models.topology.STEMS`.

        Raises:
            CheckpointError: nobody said so, and the stem is not CIFAR-10's.
        """
        usual = Input()
        if stem != "cifar" and None in (self.input_size, self.mean, self.std):
            raise CheckpointError(
                f"the checkpoint ({STEMS[stem]}) does not say what images it was trained on: give --input-size, --mean "
                "and --std, or a card beside it with input_size, mean and std (of torchvision's ImageNet weights: "
                "224, 0.485,0.456,0.406 and 0.229,0.224,0.225)"
            )
        try:
            return Input(
                usual.side if self.input_size is None else self.input_size,
                usual.mean if self.mean is None else self.mean,
                usual.std if self.std is None else self.std,
            )
        except (ValueError, TypeError) as error:
            raise CheckpointError(f"the images of the checkpoint: {error}") from error


@dataclass(frozen=True)
class Preparation:
    """What a user says about a checkpoint's images, over its card."""

    input_size: int | None = None
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
    calibration_images: Path | None = None
    """A folder of images to calibrate INT8 on, in place of a calibration beside the checkpoint."""

    def over(self, card: Card) -> Card:
        said = {name: value for name in ("input_size", "mean", "std") if (value := getattr(self, name)) is not None}
        return replace(card, **said)


AS_IT_SAYS = Preparation()


def default_path() -> Path:
    """The checkpoint to use when nobody names one: CHECKPOINT, else the bundled one."""
    return Path(os.environ.get("CHECKPOINT") or BUNDLED)


def beside(path: Path, suffix: str) -> Path:
    """The file derived from the checkpoint `path` with that suffix: `NAME.int8.json` for `.int8.json`."""
    known = next((known for known in SUFFIXES if path.name.endswith(known)), path.suffix)
    return path.with_name(path.name.removesuffix(known) + suffix)


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def save(net: nn.Module, path: Path, card: Card) -> Card:
    """Write `net` to `path` and its card beside it; gives the card completed with the file's SHA-256 and size."""
    from safetensors.numpy import save as serialize  # noqa: PLC0415 - not needed to read a card

    data = serialize({name: tensor.detach().cpu().contiguous().numpy() for name, tensor in net.state_dict().items()})
    taken = Input()
    card = replace(
        card, architecture=STEMS["cifar"], input_size=taken.side, mean=taken.mean, std=taken.std,
        sha256=sha256(data), bytes=len(data),
    )  # fmt: skip
    path.parent.mkdir(parents=True, exist_ok=True)
    write(path, data)
    write(beside(path, ".json"), (json.dumps(asdict(card), indent=2) + "\n").encode())
    return card


def write(path: Path, data: bytes) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part."""
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    with partial.open("wb") as file:
        file.write(data)
        os.fsync(file.fileno())
    partial.replace(path)


def load(path: Path | None = None, preparation: Preparation = AS_IT_SAYS) -> tuple[State, Card]:
    """The state dict at `path` (None: `default_path()`) and its card.

    Raises:
        CheckpointError: the file (or a card that it must have) is missing, its SHA-256 differs, it holds no tensors, or
            it is an INT8 artifact.
    """
    path = path or default_path()
    card = read_card(path, preparation)
    if path.name.endswith(ARTIFACT_SUFFIX):
        raise CheckpointError(f"{path} is an INT8 artifact: of the variants, it has int8 only")
    data = verified(path, card.sha256)
    return tensors(data, path), replace(card, bytes=len(data))


def read_card(path: Path | None = None, preparation: Preparation = AS_IT_SAYS) -> Card:
    """The card of the checkpoint or INT8 artifact at `path` (None: `default_path()`), with what the user says over it.

    A checkpoint other than the bundled one may come without a card, or with one that says less.

    Raises:
        CheckpointError: the card is none, or is missing and must not be; or the user says of an INT8 artifact what it
            says otherwise itself.
    """
    path = path or default_path()
    if path.name.endswith(ARTIFACT_SUFFIX):
        card = artifact_card(path)
        if preparation.over(card) != card or preparation.calibration_images:
            raise CheckpointError(
                f"{path} is an INT8 artifact: input size ({card.input_size}), mean, std and calibration are part of "
                "it, so leave those flags out; `python -m models.quantize` writes another"
            )
        return card
    place = beside(path, ".json")
    card = parse_card(read(place), place) if place.exists() or path == BUNDLED else Card()
    if not card.sha256:
        card = replace(card, sha256=sha256(read(path)))
    return preparation.over(card)


def parse_card(data: bytes, place: Path) -> Card:
    """A card from its JSON.

    Raises:
        CheckpointError: it is not one, or has a field that no card has.
    """
    try:
        content: dict[str, Any] = json.loads(data)
        values: dict[str, Any] = {key: tuple(v) if isinstance(v, list) else v for key, v in content.items()}
        card = Card(**values)
        check_classes(card.classes)
        return card
    except (ValueError, TypeError, AttributeError) as error:
        names = ", ".join(f.name for f in fields(Card))
        raise CheckpointError(
            f"{place} is not a model card ({error}); expected a JSON object with any of {names}"
        ) from error


def check_classes(classes: object) -> None:
    """Raises ValueError unless they are a name for each class."""
    count = len(cifar10.CLASSES)
    are_names = isinstance(classes, tuple) and all(isinstance(name, str) for name in classes)
    if not (are_names and isinstance(classes, tuple) and len(classes) == len(set(classes)) == count):
        raise ValueError(f"classes: expected {count} different names, got {classes!r}")


def inspect(path: Path, preparation: Preparation = AS_IT_SAYS) -> Card:
    """The card of the checkpoint at `path`, as complete as it can be made without torch, the file verified.

    Raises:
        CheckpointError: see `load`; or the tensors of a safetensors file are not those of a ResNet18 for ten classes.
    """
    card = read_card(path, preparation)
    if path.name.endswith(ARTIFACT_SUFFIX):
        return card
    card = replace(card, bytes=len(verified(path, card.sha256)))
    if path.suffix != ".safetensors":
        return card
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - not needed to read a card

    try:
        with safe_open(path, "np") as file:
            stem = detect({name: tuple(file.get_slice(name).get_shape()) for name in file.keys()})  # noqa: SIM118
        taken = card.taken(stem)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file ({error}); restore it") from error
    except (ValueError, CheckpointError) as error:
        raise CheckpointError(f"{path}: {error}") from error
    return replace(card, architecture=STEMS[stem], input_size=taken.side, mean=taken.mean, std=taken.std)


def artifact_card(path: Path) -> Card:
    """What an INT8 artifact says of itself."""
    from safetensors import SafetensorError, safe_open  # noqa: PLC0415 - not needed to read a card

    size = len(read(path))
    try:
        with safe_open(path, "np") as file:
            about = file.metadata() or {}
        taken, classes = Input.of(json.loads(about["input"])), tuple(json.loads(about["classes"]))
        check_classes(classes)
        return Card(
            classes=classes, architecture=STEMS[about["stem"]], input_size=taken.side, mean=taken.mean, std=taken.std,
            sha256=about["checkpoint_sha256"], bytes=size,
        )  # fmt: skip
    except (SafetensorError, ValueError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"{path} is damaged or no INT8 artifact ({error}); write it again: `python -m models.quantize --help`"
        ) from error


def read(path: Path) -> bytes:
    """The bytes of a file of the checkpoint's family, or a CheckpointError that says what to do."""
    try:
        return path.read_bytes()
    except FileNotFoundError:
        raise CheckpointError(
            f"{path} is missing: restore it (`git checkout -- models/weights` for the bundled one), "
            "or name another checkpoint with --checkpoint or CHECKPOINT"
        ) from None
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error}") from error


def verified(path: Path, expected: str) -> bytes:
    """The bytes of `path`, whose SHA-256 must be `expected`."""
    data = read(path)
    if (found := sha256(data)) != expected:
        raise CheckpointError(
            f"{path} ({len(data):,} bytes) is damaged or is not the checkpoint of {beside(path, '.json').name}: "
            f"SHA-256 {found}, expected {expected}; restore both files from the same release"
        )
    return data


def tensors(data: bytes, path: Path) -> State:
    """The arrays of a checkpoint's content, floating-point ones as float32."""
    named = _safetensors(data, path) if path.suffix == ".safetensors" else _state_dict(data, path)
    return {
        name: (tensor.detach().float() if tensor.is_floating_point() else tensor).numpy()
        for name, tensor in named.items()
    }


def _safetensors(data: bytes, path: Path) -> dict[str, Tensor]:
    from safetensors import SafetensorError  # noqa: PLC0415 - not needed to read a card
    from safetensors.torch import load as deserialize  # noqa: PLC0415

    try:
        return deserialize(data)
    except SafetensorError as error:
        raise CheckpointError(f"{path} is not a safetensors file ({error}); restore it") from error


def _state_dict(data: bytes, path: Path) -> dict[str, Tensor]:
    """What `torch.save(net.state_dict())` wrote: perhaps under `state_dict` or `model`, perhaps of a DataParallel."""
    import torch  # noqa: PLC0415 - not needed to read a card

    expected = "expected what torch.save(net.state_dict(), FILE) writes, or NAME.safetensors"
    try:
        with warnings.catch_warnings(action="ignore"):  # of another protocol, which is read or refused all the same
            content = torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)
    except NOT_TORCHS as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(f"{path} is no state dict ({first}); {expected}") from error
    if isinstance(content, dict):
        content = next((content[key] for key in ("state_dict", "model") if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise CheckpointError(f"{path} is no state dict (it holds other things than tensors); {expected}")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def half_precision_bytes(state: State) -> int:
    """The size of the safetensors file that the same state dict makes in float16."""
    from safetensors.numpy import save as serialize  # noqa: PLC0415 - not needed to read a card

    return len(serialize({name: a.astype(np.float16) if a.dtype == np.float32 else a for name, a in state.items()}))

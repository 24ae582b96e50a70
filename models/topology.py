"""ResNet18 for ten classes with either stem: its layers, its tensors, their connections. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from models import cifar10

L = TypeVar("L")
M = TypeVar("M")
Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each tensor of a state dict, by name."""

STEMS = {
    "cifar": "torchvision ResNet18, 3x3 stride-1 stem, no max-pool",
    "plain": "torchvision ResNet18, 7x7 stride-2 stem, max-pool",
}
"""The architecture by the name of its stem."""
SIDES = range(16, 513)
"""Heights and widths of images in pixels that the network accepts."""
SHOWN = 6
"""The most tensors that an error names."""


@dataclass(frozen=True)
class Input:
    """The images that a checkpoint was trained on: their size and normalisation."""

    side: int = 32
    """Height and width in pixels."""
    mean: tuple[float, float, float] = cifar10.MEAN
    std: tuple[float, float, float] = cifar10.STD
    """Mean and standard deviation of each channel, on the scale 0 to 1."""

    def __post_init__(self) -> None:
        if isinstance(self.side, float) or self.side not in SIDES:
            raise ValueError(f"input size: expected a whole number from {SIDES[0]} to {SIDES[-1]}, got {self.side!r}")
        for name, values in (("mean", list(self.mean)), ("std", list(self.std))):
            if len(values) != 3 or not all(0 <= value <= 1 for value in values) or (name == "std" and 0 in values):
                raise ValueError(f"{name}: expected three numbers, on the scale 0 to 1 of pixels, got {values}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Input:
        """Return the input from its JSON."""
        return cls(values["side"], tuple(values["mean"]), tuple(values["std"]))


@dataclass(frozen=True)
class Block(Generic[L]):
    """A residual block, `relu(second(first(x)) + shortcut(x))`; without a shortcut layer it adds x itself."""

    first: L
    second: L
    shortcut: L | None


@dataclass(frozen=True)
class Network(Generic[L]):
    """A value for each of the 20 convolutions and the linear layer: a `Spec`, folded weights or quantized weights."""

    stem: L
    blocks: tuple[Block[L], ...]
    head: L
    input: Input
    is_pooled: bool
    """True if a 3x3 max-pool with stride 2 follows the stem."""

    @property
    def stem_name(self) -> str:
        """Return the key of STEMS."""
        return "plain" if self.is_pooled else "cifar"

    def map(self, function: Callable[[L], M]) -> Network[M]:
        """Return the network of `function(layer)`; the layers are visited in the order in which they run."""
        stem, blocks = function(self.stem), []
        for block in self.blocks:
            shortcut = None if block.shortcut is None else function(block.shortcut)
            blocks.append(Block(function(block.first), function(block.second), shortcut))
        return Network(stem, tuple(blocks), function(self.head), self.input, self.is_pooled)

    def __iter__(self) -> Iterator[L]:
        """Iterate over the layers in the order in which they run."""
        found: list[L] = []
        self.map(found.append)
        return iter(found)


@dataclass(frozen=True)
class Spec:
    """The static shape of one layer: name, stride, ReLU, input side, weight shape."""

    name: str
    stride: int
    relu: bool
    """True if a ReLU follows directly. A block's second convolution has its ReLU after the addition."""
    side: int
    """Height and width in pixels of its input. The head averages over these positions."""
    shape: tuple[int, ...]
    """The shape of its weight: `[out, in, k, k]`; `[out, in]` for the head."""


def topology(stem: str = "cifar", inputs: Input = Input()) -> Network[Spec]:
    """Return the layers for a stem of STEMS and images of that size."""
    is_pooled = stem == "plain"
    first = Spec("conv1", 2, True, inputs.side, (64, 3, 7, 7)) if is_pooled else None
    first = first or Spec("conv1", 1, True, inputs.side, (64, 3, 3, 3))
    side = halved(halved(inputs.side)) if is_pooled else inputs.side
    blocks, width = [], 64
    for stage in range(1, 5):
        for index in (0, 1):
            name, stride, out = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1, 32 * 2**stage
            shortcut = Spec(f"{name}.downsample.0", 2, False, side, (out, width, 1, 1)) if stride == 2 else None
            entry = Spec(f"{name}.conv1", stride, True, side, (out, width, 3, 3))
            side, width = halved(side) if stride == 2 else side, out
            blocks.append(Block(entry, Spec(f"{name}.conv2", 1, False, side, (out, out, 3, 3)), shortcut))
    head = Spec("fc", 1, False, side, (len(cifar10.CLASSES), width))
    return Network(first, tuple(blocks), head, inputs, is_pooled)


def halved(side: int) -> int:
    """Return the side of an image after a stride of 2, with torchvision's paddings."""
    return (side + 1) // 2


def norm(name: str) -> str:
    """Return the name of the BatchNorm after a convolution."""
    return name.replace("downsample.0", "downsample.1").replace("conv", "bn")


def shapes(stem: str) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of torchvision's state dict."""
    found: dict[str, tuple[int, ...]] = {}
    for spec in topology(stem):
        found[f"{spec.name}.weight"] = spec.shape
        width = spec.shape[:1]
        if spec.name == "fc":
            found["fc.bias"] = width
        else:
            found |= {f"{norm(spec.name)}.{part}": width for part in ("weight", "bias", "running_mean", "running_var")}
            found[f"{norm(spec.name)}.num_batches_tracked"] = ()
    return found


def detect(found: Shapes) -> str:
    """Return the stem (of STEMS) of the state dict with these shapes; counters `num_batches_tracked` are optional.

    Raises:
        ValueError: the state dict is no ResNet18 with ten classes; says which tensors differ.
    """
    stem = "plain" if tuple(found.get("conv1.weight", ()))[2:] == (7, 7) else "cifar"
    expected = shapes(stem)
    optional = {name for name in expected if name.endswith("num_batches_tracked")}
    names = {name for name, _ in set(expected.items()) ^ {(name, tuple(shape)) for name, shape in found.items()}}
    wrong = sorted(names - (optional - set(found)))
    if wrong:
        parts = [f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'none')}" for name in wrong]
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise ValueError(f"not a ResNet18 with ten classes ({STEMS[stem]}): {'; '.join(parts[:SHOWN])}{more}")
    return stem

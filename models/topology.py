"""torchvision's ResNets with either stem: their layers, their tensors, their connections. Imports no torch."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any, Generic, TypeVar

from models import cifar10

L = TypeVar("L")
M = TypeVar("M")
Shapes = Mapping[str, tuple[int, ...]]
"""Shape of each tensor of a state dict, by name."""

SIDES = range(16, 513)
"""Heights and widths of images in pixels that the network accepts."""
RESIZES = range(16, 1025)
"""Lengths in pixels to which the shorter side of an image can be resized."""
FEWEST = 10
"""The fewest images for calibration and self-test at a start."""
USUAL_MULTIPLICATIONS = 555_422_720
"""Multiply-accumulates of the bundled network for an image."""
SHOWN = 6
"""The most tensors that an error names."""


@dataclass(frozen=True)
class Input:
    """The images that a checkpoint was trained on: their size, preparation and normalisation."""

    side: int = 32
    """Height and width in pixels."""
    mean: tuple[float, float, float] = cifar10.MEAN
    std: tuple[float, float, float] = cifar10.STD
    """Mean and standard deviation of each channel, on the scale 0 to 1."""
    resize: int | None = None
    """Length in pixels to which the shorter side of an image is resized before its centre is cut out. None: the largest
    centred square is resized to `side`. See `models.preprocess.to_pixels`."""

    def __post_init__(self) -> None:
        if isinstance(self.side, float) or self.side not in SIDES:
            raise ValueError(f"input size: expected a whole number from {SIDES[0]} to {SIDES[-1]}, got {self.side!r}")
        for name, values in (("mean", list(self.mean)), ("std", list(self.std))):
            if len(values) != 3 or not all(0 <= value <= 1 for value in values) or (name == "std" and 0 in values):
                raise ValueError(f"{name}: expected three numbers, on the scale 0 to 1 of pixels, got {values}")
        if self.resize is None:
            return
        if isinstance(self.resize, float) or self.resize not in range(self.side, RESIZES[-1] + 1):
            expected = f"a whole number from the input size, {self.side}, to {RESIZES[-1]}"
            raise ValueError(f"resize: expected {expected}, got {self.resize!r}")

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Input:
        """Return the input from its JSON."""
        return cls(values["side"], tuple(values["mean"]), tuple(values["std"]), values.get("resize"))

    def as_json(self) -> dict[str, Any]:
        """Return the JSON of the input; it has `resize` only where images are resized and cut."""
        values = {"side": self.side, "mean": self.mean, "std": self.std}
        return values if self.resize is None else values | {"resize": self.resize}


@dataclass(frozen=True)
class Convolution:
    """One convolution of a kind of block."""

    name: str
    kernel: int
    """Height and width of its window."""
    is_strided: bool = False
    """True if it has the stride of its block."""
    expansion: int = 1
    """Its output channels, as a multiple of the width of its stage."""


@dataclass(frozen=True)
class Depth:
    """A row of DEPTHS: the blocks of a ResNet."""

    blocks: tuple[int, int, int, int]
    """Blocks of each stage."""
    convolutions: tuple[Convolution, ...]
    """The convolutions of each block; its ReLU and the addition follow the last one."""


BASIC = (Convolution("conv1", 3, is_strided=True), Convolution("conv2", 3))
"""torchvision's BasicBlock."""
BOTTLENECK = (Convolution("conv1", 1), Convolution("conv2", 3, is_strided=True), Convolution("conv3", 1, expansion=4))
"""torchvision's Bottleneck, which has its stride in the 3x3 convolution (ResNet v1.5)."""
DEPTHS = {
    18: Depth((2, 2, 2, 2), BASIC),
    34: Depth((3, 4, 6, 3), BASIC),
    50: Depth((3, 4, 6, 3), BOTTLENECK),
    101: Depth((3, 4, 23, 3), BOTTLENECK),
    152: Depth((3, 8, 36, 3), BOTTLENECK),
}
"""The blocks by the number in the network's name."""


@dataclass(frozen=True)
class Stem:
    """A row of STEMS: the first convolution."""

    kernel: int
    stride: int
    has_max_pool: bool
    """True if a max-pool usually follows."""


STEMS = {"cifar": Stem(3, 1, has_max_pool=False), "plain": Stem(7, 2, has_max_pool=True)}
"""The stems by name: the usual one for CIFAR-10 (https://github.com/kuangliu/pytorch-cifar), and torchvision's own."""


@dataclass(frozen=True)
class Architecture:
    """What distinguishes one ResNet from another."""

    depth: int
    """A key of DEPTHS."""
    stem: str
    """A key of STEMS."""
    max_pool: bool
    """True if a 3x3 max-pool with stride 2 follows the stem. No shape shows it."""
    classes: int
    """The number of classes."""

    @property
    def name(self) -> str:
        """Return torchvision's name of the network: `resnet18`."""
        return f"resnet{self.depth}"

    @property
    def sentence(self) -> str:
        """Return a description for people."""
        stem, pool = STEMS[self.stem], "max-pool" if self.max_pool else "no max-pool"
        return f"torchvision ResNet{self.depth}, {stem.kernel}x{stem.kernel} stride-{stem.stride} stem, {pool}"


def name_of(sentence: str) -> str:
    """Return `Architecture.name` of the network that `Architecture.sentence` describes."""
    return sentence.removeprefix("torchvision ").partition(",")[0].lower()


@dataclass(frozen=True)
class Block(Generic[L]):
    """A residual block, `relu(last(...(x)) + shortcut(x))`; without a shortcut layer it adds x itself."""

    layers: tuple[L, ...]
    """Its convolutions: two in a BasicBlock, three in a Bottleneck."""
    shortcut: L | None


@dataclass(frozen=True)
class Network(Generic[L]):
    """A value for each convolution and the linear layer: a `Spec`, folded weights or quantized weights."""

    stem: L
    blocks: tuple[Block[L], ...]
    head: L
    input: Input
    architecture: Architecture

    def map(self, function: Callable[[L], M]) -> Network[M]:
        """Return the network of `function(layer)`; the layers are visited in the order in which they run."""
        stem, blocks = function(self.stem), []
        for block in self.blocks:
            shortcut = None if block.shortcut is None else function(block.shortcut)
            blocks.append(Block(tuple(map(function, block.layers)), shortcut))
        return Network(stem, tuple(blocks), function(self.head), self.input, self.architecture)

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
    """True if a ReLU follows directly. A block's last convolution has its ReLU after the addition."""
    side: int
    """Height and width in pixels of its input. The head averages over these positions."""
    shape: tuple[int, ...]
    """The shape of its weight: `[out, in, k, k]`; `[out, in]` for the head."""

    @property
    def out_side(self) -> int:
        """Return height and width in pixels of its output."""
        return halved(self.side) if self.stride == 2 else self.side


def topology(architecture: Architecture, inputs: Input = Input()) -> Network[Spec]:
    """Return the layers of a network for images of that size."""
    stem, depth = STEMS[architecture.stem], DEPTHS[architecture.depth]
    first = Spec("conv1", stem.stride, True, inputs.side, (64, 3, stem.kernel, stem.kernel))
    side, channels = halved(first.out_side) if architecture.max_pool else first.out_side, 64
    blocks: list[Block[Spec]] = []
    for stage, count in enumerate(depth.blocks, start=1):
        for index in range(count):
            stride = 2 if stage > 1 and index == 0 else 1
            blocks.append(_block(f"layer{stage}.{index}", depth.convolutions, channels, 32 * 2**stage, stride, side))
            last = blocks[-1].layers[-1]
            side, channels = last.side, last.shape[0]
    head = Spec("fc", 1, False, side, (architecture.classes, channels))
    return Network(first, tuple(blocks), head, inputs, architecture)


def _block(
    name: str, convolutions: tuple[Convolution, ...], channels: int, width: int, stride: int, side: int
) -> Block[Spec]:
    """Return the layers of a block that gets `channels` channels; `width` is the width of its stage."""
    layers: list[Spec] = []
    out = width * convolutions[-1].expansion
    shape = (out, channels, 1, 1)
    has_shortcut = stride > 1 or channels != out
    shortcut = Spec(f"{name}.downsample.0", stride, False, side, shape) if has_shortcut else None
    for convolution in convolutions:
        own_stride = stride if convolution.is_strided else 1
        shape = (width * convolution.expansion, channels, convolution.kernel, convolution.kernel)
        is_last = convolution is convolutions[-1]
        layers.append(Spec(f"{name}.{convolution.name}", own_stride, not is_last, side, shape))
        side, channels = layers[-1].out_side, shape[0]
    return Block(tuple(layers), shortcut)


def multiplications(network: Network[Spec]) -> int:
    """Return the multiply-accumulates of the convolutions and the linear layer for one image."""
    return sum(prod(spec.shape) * (spec.out_side**2 if len(spec.shape) == 4 else 1) for spec in network)


def affordable(network: Network[Spec], images: int) -> int:
    """Return how many of so many images a start can afford to calibrate or test on, where code is slow.

    They take the time that all of them take with the bundled network: 40 of 300 with a ResNet50 at 224 pixels.
    """
    return min(images, max(FEWEST, images * USUAL_MULTIPLICATIONS // multiplications(network)))


def halved(side: int) -> int:
    """Return the side of an image after a stride of 2, with torchvision's paddings."""
    return (side + 1) // 2


def norm(name: str) -> str:
    """Return the name of the BatchNorm after a convolution."""
    return name.replace("downsample.0", "downsample.1").replace("conv", "bn")


def shapes(architecture: Architecture) -> dict[str, tuple[int, ...]]:
    """Return name and shape of every tensor of torchvision's state dict."""
    found: dict[str, tuple[int, ...]] = {}
    for spec in topology(architecture):
        found[f"{spec.name}.weight"] = spec.shape
        width = spec.shape[:1]
        if spec.name == "fc":
            found["fc.bias"] = width
        else:
            found |= {f"{norm(spec.name)}.{part}": width for part in ("weight", "bias", "running_mean", "running_var")}
            found[f"{norm(spec.name)}.num_batches_tracked"] = ()
    return found


def detect(found: Shapes) -> Architecture:
    """Return the architecture of the state dict with these shapes; counters `num_batches_tracked` are optional.

    No shape shows the max-pool: the stem's usual one is assumed.

    Raises:
        ValueError: the state dict is no ResNet of DEPTHS; says which tensors differ from the most similar one.
    """
    guess = _most_similar(found)
    expected = shapes(guess)
    optional = {name for name in expected if name.endswith("num_batches_tracked")}
    names = {name for name, _ in set(expected.items()) ^ {(name, tuple(shape)) for name, shape in found.items()}}
    wrong = sorted(names - (optional - set(found)))
    if wrong:
        parts = [f"{name} is {found.get(name, 'missing')}, expected {expected.get(name, 'none')}" for name in wrong]
        more = f"; and {len(wrong) - SHOWN} more" if len(wrong) > SHOWN else ""
        raise ValueError(f"not a {guess.sentence}: {'; '.join(parts[:SHOWN])}{more}")
    return guess


def _most_similar(found: Shapes) -> Architecture:
    """Return the architecture with the most tensors of these names and shapes, and the head's number of classes."""
    stem = "plain" if tuple(found.get("conv1.weight", ()))[2:] == (7, 7) else "cifar"
    rows = (*found.get("fc.weight", ())[:1], *found.get("fc.bias", ())[:1])
    classes = next((count for count in rows if count > 1), 2)
    given = {(name, tuple(shape)) for name, shape in found.items()}
    candidates = [Architecture(depth, stem, STEMS[stem].has_max_pool, classes) for depth in DEPTHS]
    return min(candidates, key=lambda candidate: len(given ^ set(shapes(candidate).items())))

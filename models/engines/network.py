"""The network as every engine builds it: a stem, eight residual blocks and a head, BatchNorm folded in."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from models import cifar10
from models.checkpoint import CheckpointError, State
from models.resnet import resnet18

EPSILON = 1e-5
"""torchvision's BatchNorm2d."""
HEAD_POSITIONS = 16
"""The head sees the average over 4x4 positions."""

L = TypeVar("L")
M = TypeVar("M")


@dataclass(frozen=True)
class Block(Generic[L]):
    """`relu(second(first(x)) + shortcut(x))`; without a shortcut layer x itself is added."""

    first: L
    second: L
    shortcut: L | None


@dataclass(frozen=True)
class Network(Generic[L]):
    """Something for each of the 20 convolutions and the linear layer: a name, folded weights, quantized weights."""

    stem: L
    blocks: tuple[Block[L], ...]
    head: L

    def map(self, function: Callable[[L], M]) -> Network[M]:
        """`function` of each layer, called in the order in which they run."""
        stem, blocks = function(self.stem), []
        for block in self.blocks:
            shortcut = None if block.shortcut is None else function(block.shortcut)
            blocks.append(Block(function(block.first), function(block.second), shortcut))
        return Network(stem, tuple(blocks), function(self.head))

    def __iter__(self) -> Iterator[L]:
        """The layers, in the order in which they run."""
        found: list[L] = []
        self.map(found.append)
        return iter(found)


@dataclass(frozen=True)
class Spec:
    """What is the same for every checkpoint."""

    name: str
    stride: int
    relu: bool
    """Whether a ReLU follows directly. A block's second convolution has its ReLU after the addition."""
    side: int
    """Height and width in pixels of what it reads."""


@dataclass(frozen=True)
class FoldedLayer:
    """A convolution and the BatchNorm after it, as one: `y = conv(x, weight) + bias`; or the linear layer."""

    spec: Spec
    weight: Tensor
    """`[out, in, k, k] float32`; the head's is `[10, 512]`."""
    bias: Tensor
    """`[out] float32`."""


def topology() -> Network[Spec]:
    """ResNet18 for 32x32 images."""
    blocks, side = [], 32
    for stage in range(1, 5):
        for index in (0, 1):
            name, stride = f"layer{stage}.{index}", 2 if stage > 1 and index == 0 else 1
            shortcut = Spec(f"{name}.downsample.0", stride, False, side) if stride == 2 else None
            first = Spec(f"{name}.conv1", stride, True, side)
            side //= stride
            blocks.append(Block(first, Spec(f"{name}.conv2", 1, False, side), shortcut))
    return Network(Spec("conv1", 1, True, 32), tuple(blocks), Spec("fc", 1, False, 1))


def fold(state: State) -> Network[FoldedLayer]:
    """The network of a state dict, each BatchNorm folded into its convolution in float64.

    It takes `[N, 3, 32, 32] float32, normalised`.

    Raises:
        CheckpointError: names or shapes are not those of `models.resnet.resnet18`.
    """
    _check_names(state)
    return topology().map(lambda spec: _folded(state, spec))


Layer = Callable[[Tensor], Tensor]
ResidualLayer = Callable[[Tensor, Tensor], Tensor]


def assemble(network: Network[L], plain: Callable[[L], Layer], residual: Callable[[L], ResidualLayer]) -> Layer:
    """Stem and blocks as one function, from a backend's two ways to run a convolution.

    Args:
        network: the layers; the head is left to the caller.
        plain: builds `f(x)`, the convolution, with ReLU where its spec says so.
        residual: builds `f(x, accumulator)`, ReLU of convolution plus accumulator; it may overwrite the accumulator.
    """
    stem = plain(network.stem)
    blocks = [(plain(b.first), residual(b.second), plain(b.shortcut) if b.shortcut else None) for b in network.blocks]

    def features(x: Tensor) -> Tensor:
        x = stem(x)
        for first, second, shortcut in blocks:
            x = second(first(x), shortcut(x) if shortcut else x)
        return x

    return features


def mean_and_scale(device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """`(mean, scale)`, each `[3, 1, 1] float32`: `(pixels - mean) * scale` is the normalised image, pixels 0 to 255."""
    mean = torch.tensor(cifar10.MEAN, device=device).view(3, 1, 1) * 255
    return mean, 1 / (torch.tensor(cifar10.STD, device=device).view(3, 1, 1) * 255)


def _folded(state: State, spec: Spec) -> FoldedLayer:
    weight = torch.from_numpy(state[f"{spec.name}.weight"])
    if spec.name == "fc":
        return FoldedLayer(spec, weight, torch.from_numpy(state["fc.bias"]))
    norm = spec.name.replace("downsample.0", "downsample.1").replace("conv", "bn")
    gamma, beta, mean, variance = (
        torch.from_numpy(state[f"{norm}.{part}"]).double() for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gamma / torch.sqrt(variance + EPSILON)
    return FoldedLayer(spec, (weight * factor.view(-1, 1, 1, 1)).float(), (beta - mean * factor).float())


def _check_names(state: State) -> None:
    with torch.device("meta"):
        expected: dict[str, Any] = {name: tuple(tensor.shape) for name, tensor in resnet18().state_dict().items()}
    found: dict[str, Any] = {name: array.shape for name, array in state.items()}
    if wrong := sorted({name for name, _ in set(expected.items()) ^ set(found.items())}):
        raise CheckpointError(
            f"the checkpoint is not a CIFAR ResNet18: {wrong[0]} is {found.get(wrong[0], 'missing')}, "
            f"expected {expected.get(wrong[0], 'no such tensor')}; {len(wrong)} tensors differ"
        )

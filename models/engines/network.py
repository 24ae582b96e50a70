"""The network as every engine builds it: twenty convolutions with BatchNorm folded in, eight residual blocks, one head."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from models import cifar10
from models.checkpoint import CheckpointError, State
from models.resnet import resnet18

EPSILON = 1e-5
"""torchvision's BatchNorm2d."""


@dataclass(frozen=True)
class Convolution:
    """A convolution and the BatchNorm after it, as one: `y = conv(x, weight) + bias`."""

    name: str
    weight: Tensor
    """`[out, in, k, k] float32`."""
    bias: Tensor
    """`[out] float32`."""
    stride: int
    relu: bool
    """Whether a ReLU follows directly. A block's second convolution has its ReLU after the addition."""

    @property
    def padding(self) -> int:
        return self.weight.shape[2] // 2


@dataclass(frozen=True)
class Block:
    """`relu(second(first(x)) + shortcut(x))`; without a shortcut convolution x itself is added."""

    first: Convolution
    second: Convolution
    shortcut: Convolution | None


@dataclass(frozen=True)
class Network:
    """The folded network. It takes `[N, 3, 32, 32] float32, normalised`."""

    stem: Convolution
    blocks: tuple[Block, ...]
    head_weight: Tensor
    """`[10, 512] float32`, after the average over 4x4 positions."""
    head_bias: Tensor

    def convolutions(self) -> list[Convolution]:
        """In the order in which they run."""
        found = [self.stem]
        for block in self.blocks:
            found += [*([block.shortcut] if block.shortcut else []), block.first, block.second]
        return found

    def input_sides(self) -> dict[str, int]:
        """The height (and width) in pixels of what each convolution reads, by name."""
        sides, side = {self.stem.name: 32}, 32
        for block in self.blocks:
            sides[block.first.name] = side
            if block.shortcut:
                sides[block.shortcut.name] = side
            side //= block.first.stride
            sides[block.second.name] = side
        return sides


Layer = Callable[[Tensor], Tensor]
ResidualLayer = Callable[[Tensor, Tensor], Tensor]


def fold(state: State) -> Network:
    """The network of a state dict, each BatchNorm folded into its convolution in float64.

    Raises:
        CheckpointError: names or shapes are not those of `models.resnet.resnet18`.
    """
    _check_names(state)
    blocks = tuple(_block(state, f"layer{stage}.{i}", 2 if stage > 1 and i == 0 else 1) for stage in range(1, 5) for i in (0, 1))
    return Network(
        _convolution(state, "conv1", "bn1", 1, relu=True),
        blocks,
        torch.from_numpy(state["fc.weight"]),
        torch.from_numpy(state["fc.bias"]),
    )


def assemble(network: Network, plain: Callable[[Convolution], Layer], residual: Callable[[Convolution], ResidualLayer]) -> Layer:
    """Everything between the pixels and the head as one function, from a backend's two ways to run a convolution.

    Args:
        plain: builds `f(x)`, the convolution, with ReLU where `relu` says so.
        residual: builds `f(x, accumulator)`, ReLU of convolution plus accumulator; it may overwrite the accumulator.
    """
    stem = plain(network.stem)
    built = [
        (plain(block.first), residual(block.second), plain(block.shortcut) if block.shortcut else None) for block in network.blocks
    ]

    def forward(x: Tensor) -> Tensor:
        x = stem(x)
        for first, second, shortcut in built:
            x = second(first(x), shortcut(x) if shortcut else x)
        return x

    return forward


def mean_and_scale(device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """`(mean, scale)`, each `[3, 1, 1] float32`: `(pixels - mean) * scale` is the normalised image, pixels 0 to 255."""
    mean = torch.tensor(cifar10.MEAN, device=device).view(3, 1, 1) * 255
    return mean, 1 / (torch.tensor(cifar10.STD, device=device).view(3, 1, 1) * 255)


def _block(state: State, name: str, stride: int) -> Block:
    shortcut = f"{name}.downsample"
    return Block(
        _convolution(state, f"{name}.conv1", f"{name}.bn1", stride, relu=True),
        _convolution(state, f"{name}.conv2", f"{name}.bn2", 1, relu=False),
        _convolution(state, f"{shortcut}.0", f"{shortcut}.1", stride, relu=False) if f"{shortcut}.0.weight" in state else None,
    )


def _convolution(state: State, name: str, norm: str, stride: int, *, relu: bool) -> Convolution:
    gamma, beta, mean, variance = (
        torch.from_numpy(state[f"{norm}.{part}"]).double() for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gamma / torch.sqrt(variance + EPSILON)
    weight = torch.from_numpy(state[f"{name}.weight"]).double() * factor.view(-1, 1, 1, 1)
    return Convolution(name, weight.float(), (beta - mean * factor).float(), stride, relu)


def _check_names(state: State) -> None:
    with torch.device("meta"):
        expected = {name: tuple(tensor.shape) for name, tensor in resnet18().state_dict().items()}
    found = {name: array.shape for name, array in state.items()}
    if wrong := sorted(set(expected.items()) ^ set(found.items())):
        raise CheckpointError(
            f"the checkpoint is not a CIFAR ResNet18: {wrong[0][0]!r} is {found.get(wrong[0][0], 'missing')}, "
            f"expected {expected.get(wrong[0][0], 'no such tensor')} ({len({name for name, _ in wrong})} tensors differ)"
        )

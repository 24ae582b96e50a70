"""The network as every engine builds it: a stem, eight residual blocks and a head, BatchNorm folded in."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
import torch.nn.functional as F
from torch import Tensor

from models.card import Card
from models.checkpoint import State
from models.files import CheckpointError
from models.topology import Input, L, Network, Spec, detect, norm, topology

EPSILON = 1e-5
"""torchvision's BatchNorm2d."""


@dataclass(frozen=True)
class FoldedLayer:
    """A convolution and the BatchNorm after it, as one: `y = conv(x, weight) + bias`; or the linear layer."""

    spec: Spec
    weight: Tensor
    """`[out, in, k, k] float32`; the head's is `[10, 512]`."""
    bias: Tensor
    """`[out] float32`."""


def fold(state: State, card: Card | None = None) -> Network[FoldedLayer]:
    """The network of a state dict, each BatchNorm folded into its convolution in float64.

    It takes `[N, 3, H, W] float32`, normalised as its `input` says, which is what `card` says of the images.

    Raises:
        CheckpointError: it is no ResNet18 with ten classes, or nobody said what images it takes.
    """
    try:
        stem = detect({name: tuple(array.shape) for name, array in state.items()})
    except ValueError as error:
        raise CheckpointError(f"the checkpoint does not fit: {error}") from error
    return topology(stem, (card or Card()).taken(stem)).map(lambda spec: _folded(state, spec))


Layer = Callable[[Tensor], Tensor]
ResidualLayer = Callable[[Tensor, Tensor], Tensor]
X = TypeVar("X")


def assemble(
    network: Network[L],
    plain: Callable[[L], Callable[[X], X]],
    residual: Callable[[L], Callable[[X, X], X]],
    pool: Callable[[X], X],
) -> Callable[[X], X]:
    """Stem and blocks as one function, from a backend's two ways to run a convolution and its max-pool.

    Args:
        network: the layers; the head is left to the caller.
        plain: builds `f(x)`, the convolution, with ReLU where its spec says so.
        residual: builds `f(x, accumulator)`, ReLU of convolution plus accumulator; it may overwrite the accumulator.
        pool: 3x3, stride 2, padding 1, where the stem has one.
    """
    stem = plain(network.stem)
    blocks = [(plain(b.first), residual(b.second), plain(b.shortcut) if b.shortcut else None) for b in network.blocks]

    def features(x: X) -> X:
        x = pool(stem(x)) if network.is_pooled else stem(x)
        for first, second, shortcut in blocks:
            x = second(first(x), shortcut(x) if shortcut else x)
        return x

    return features


def max_pool(x: Tensor) -> Tensor:
    """The largest of each 3x3 positions, stride 2, padding 1, of `[N, C, H, W]`, none negative; channels last."""
    if x.is_floating_point():
        return F.max_pool2d(x, 3, 2, 1)
    for axis in (2, 3):  # torch has no max-pool for uint8 images of this size
        sides = x.movedim(axis, 0)
        even, odd = sides[::2], sides[1::2]
        most = even.clone(memory_format=torch.preserve_format)
        torch.maximum(most[: len(odd)], odd, out=most[: len(odd)])
        torch.maximum(most[1:], odd[: len(most) - 1], out=most[1:])
        x = most.movedim(0, axis)
    return x.contiguous(memory_format=torch.channels_last)


def mean_and_scale(taken: Input, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """`(mean, scale)`, each `[3, 1, 1] float32`: `(pixels - mean) * scale` is the normalised image, pixels 0 to 255."""
    mean = torch.tensor(taken.mean, device=device).view(3, 1, 1) * 255
    return mean, 1 / (torch.tensor(taken.std, device=device).view(3, 1, 1) * 255)


def _folded(state: State, spec: Spec) -> FoldedLayer:
    weight = torch.from_numpy(state[f"{spec.name}.weight"])
    if spec.name == "fc":
        return FoldedLayer(spec, weight, torch.from_numpy(state["fc.bias"]))
    gamma, beta, mean, variance = (
        torch.from_numpy(state[f"{norm(spec.name)}.{part}"]).double()
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gamma / torch.sqrt(variance + EPSILON)
    return FoldedLayer(spec, (weight * factor.view(-1, 1, 1, 1)).float(), (beta - mean * factor).float())

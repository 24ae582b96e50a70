"""The network that every engine is built from: a stem, eight residual blocks and a head, BatchNorm folded in."""

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
"""The epsilon of torchvision's BatchNorm2d."""


@dataclass(frozen=True)
class FoldedLayer:
    """A convolution with its BatchNorm folded in, `y = conv(x, weight) + bias`; or the linear layer."""

    spec: Spec
    weight: Tensor
    """`[out, in, k, k] float32`; `[10, 512]` for the head."""
    bias: Tensor
    """`[out] float32`."""


def fold(state: State, card: Card | None = None) -> Network[FoldedLayer]:
    """Return the network of a state dict, each BatchNorm folded into its convolution in float64.

    It takes `[N, 3, S, S] float32` images, normalised with the mean and std of its `input`, which come from `card`.

    Raises:
        CheckpointError: the state dict is no ResNet18 with ten classes, or the card does not say which images it takes.
    """
    try:
        stem = detect({name: tuple(array.shape) for name, array in state.items()})
    except ValueError as error:
        raise CheckpointError(f"the checkpoint does not fit: {error}") from error
    return topology(stem, (card or Card()).input_for(stem)).map(lambda spec: _folded(state, spec))


Layer = Callable[[Tensor], Tensor]
ResidualLayer = Callable[[Tensor, Tensor], Tensor]
X = TypeVar("X")


def assemble(
    network: Network[L],
    plain: Callable[[L], Callable[[X], X]],
    residual: Callable[[L], Callable[[X, X], X]],
    pool: Callable[[X], X],
) -> Callable[[X], X]:
    """Return stem and blocks as one function, made of a backend's convolutions and max-pool.

    Args:
        network: the layers; the head is left to the caller.
        plain: builds `f(x)`, the convolution, with a ReLU if its spec has one.
        residual: builds `f(x, accumulator)`, the ReLU of convolution plus accumulator; may overwrite the accumulator.
        pool: the 3x3 max-pool with stride 2 and padding 1, used if the network is pooled.
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
    """Return the 3x3 max-pool, stride 2, padding 1, of `[N, C, H, W]`."""
    return F.max_pool2d(x, 3, 2, 1)


def mean_and_scale(inputs: Input, device: torch.device | str = "cpu") -> tuple[Tensor, Tensor]:
    """Return `[3, 1, 1] float32` tensors such that `(pixels - mean) * scale` normalises pixels of 0 to 255."""
    mean = torch.tensor(inputs.mean, device=device).view(3, 1, 1) * 255
    return mean, 1 / (torch.tensor(inputs.std, device=device).view(3, 1, 1) * 255)


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

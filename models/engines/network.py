"""The network that every engine is built from: a stem, residual blocks and a head, BatchNorm folded in.

Imports no torch.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from models.card import Card
from models.checkpoint import State
from models.topology import Block, Input, L, Network, Spec, norm

EPSILON = 1e-5
"""The epsilon of torchvision's BatchNorm2d."""


@dataclass(frozen=True)
class FoldedLayer:
    """A convolution with its BatchNorm folded in, `y = conv(x, weight) + bias`; or the linear layer."""

    spec: Spec
    weight: NDArray[np.float32]
    """`[out, in, k, k] float32`; `[classes, in]` for the head."""
    bias: NDArray[np.float32]
    """`[out] float32`."""


def fold(state: State, card: Card | None = None) -> Network[FoldedLayer]:
    """Return the network of a state dict, each BatchNorm folded into its convolution in float64.

    It takes `[N, 3, S, S] float32` images, normalised with the mean and std of its `input`, which come from `card`.

    Raises:
        CheckpointError: the state dict is no ResNet, or the card does not say which images it takes.
    """
    plan = (card or Card()).plan({name: array.shape for name, array in state.items()})
    return plan.map(lambda spec: _folded(state, spec))


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
        pool: the 3x3 max-pool with stride 2 and padding 1, used if the network has it.
    """
    stem, has_max_pool = plain(network.stem), network.architecture.max_pool
    blocks = [_block(block, plain, residual) for block in network.blocks]

    def features(x: X) -> X:
        x = pool(stem(x)) if has_max_pool else stem(x)
        for block in blocks:
            x = block(x)
        return x

    return features


def _block(
    block: Block[L], plain: Callable[[L], Callable[[X], X]], residual: Callable[[L], Callable[[X, X], X]]
) -> Callable[[X], X]:
    *first, last = block.layers
    inner, outer = [plain(layer) for layer in first], residual(last)
    shortcut = plain(block.shortcut) if block.shortcut else None

    def run(x: X) -> X:
        y = x
        for layer in inner:
            y = layer(y)
        return outer(y, shortcut(x) if shortcut else x)

    return run


def mean_and_scale(inputs: Input) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    """Return `[3, 1, 1] float32` arrays such that `(pixels - mean) * scale` normalises pixels of 0 to 255."""
    mean, std = (np.array(values, np.float32).reshape(3, 1, 1) * 255 for values in (inputs.mean, inputs.std))
    return mean, np.float32(1) / std


def _folded(state: State, spec: Spec) -> FoldedLayer:
    weight = state[f"{spec.name}.weight"]
    if spec.name == "fc":
        return FoldedLayer(spec, weight, state["fc.bias"])
    gamma, beta, mean, variance = (
        state[f"{norm(spec.name)}.{part}"].astype(np.float64)
        for part in ("weight", "bias", "running_mean", "running_var")
    )
    factor = gamma / np.sqrt(variance + EPSILON)
    folded = np.empty_like(weight)  # rounded at once: the weights in float64 would be twice their size
    np.multiply(weight, factor[:, None, None, None], out=folded, dtype=np.float64, casting="same_kind")
    return FoldedLayer(spec, folded, (beta - mean * factor).astype(np.float32))

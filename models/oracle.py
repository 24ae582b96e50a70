"""The oracle: torchvision's network in FP32, not folded, not fused, in plain numpy. It shares no code with the engines.

Imports no torch. A test holds it against torchvision's own network.
"""

import io
import json

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from tqdm import tqdm

from models import cifar10, preprocess
from models.card import Card
from models.checkpoint import State
from models.topology import BASIC, DEPTHS, STEMS, Architecture

Array = NDArray[np.float32]
"""Activations are `[N, H, W, C]`."""
EPSILON = np.float32(1e-5)
"""The epsilon of torchvision's BatchNorm2d."""
BATCH = 10
"""Images at once; a convolution copies the window of every pixel, which takes 2.4 MB an image."""


def packed_logits(state: State, card: Card, images: cifar10.Images, *, shows_progress: bool = False) -> bytes:
    """Return a .npz with the oracle's logits on `[N, 3, 32, 32] uint8` images, and the checkpoint's SHA-256."""
    plan = card.plan({name: array.shape for name, array in state.items()})
    inputs = plan.input
    mean, std = (np.array(values, np.float32) * 255 for values in (inputs.mean, inputs.std))
    pixels = preprocess.resized(images, inputs.side, inputs.resize).transpose(0, 2, 3, 1)
    starts = tqdm(range(0, len(pixels), BATCH), "reference", leave=False, disable=None if shows_progress else True)
    batches = (pixels[i : i + BATCH].astype(np.float32) for i in starts)
    logits = np.concatenate([forward(state, plan.architecture, (batch - mean) / std) for batch in batches])
    content = io.BytesIO()
    of = json.dumps(inputs.as_json())
    np.savez_compressed(content, logits=logits, checkpoint_sha256=np.array(card.sha256), input=np.array(of))
    return content.getvalue()


def forward(state: State, architecture: Architecture, x: Array) -> Array:
    """Return the `[N, classes]` logits of a state dict on `[N, S, S, 3] float32` images, normalised."""
    x = relu(normalised(state, "bn1", convolved(x, state["conv1.weight"], STEMS[architecture.stem].stride)))
    x = max_pooled(x) if architecture.max_pool else x
    depth = DEPTHS[architecture.depth]
    block = basic_block if depth.convolutions is BASIC else bottleneck
    for stage, count in enumerate(depth.blocks, start=1):
        for index in range(count):
            x = block(state, f"layer{stage}.{index}", x, 2 if stage > 1 and index == 0 else 1)
    logits: Array = x.mean((1, 2)) @ state["fc.weight"].T + state["fc.bias"]
    return logits


def basic_block(state: State, name: str, x: Array, stride: int) -> Array:
    """Return torchvision's BasicBlock of `x`."""
    y = relu(normalised(state, f"{name}.bn1", convolved(x, state[f"{name}.conv1.weight"], stride)))
    y = normalised(state, f"{name}.bn2", convolved(y, state[f"{name}.conv2.weight"], 1))
    return relu(y + shortcut(state, name, x, stride))


def bottleneck(state: State, name: str, x: Array, stride: int) -> Array:
    """Return torchvision's Bottleneck of `x`."""
    y = relu(normalised(state, f"{name}.bn1", convolved(x, state[f"{name}.conv1.weight"], 1)))
    y = relu(normalised(state, f"{name}.bn2", convolved(y, state[f"{name}.conv2.weight"], stride)))
    y = normalised(state, f"{name}.bn3", convolved(y, state[f"{name}.conv3.weight"], 1))
    return relu(y + shortcut(state, name, x, stride))


def shortcut(state: State, name: str, x: Array, stride: int) -> Array:
    """Return what a block adds to its convolutions: `x`, or `x` through the block's own 1x1 convolution."""
    if f"{name}.downsample.0.weight" not in state:
        return x
    return normalised(state, f"{name}.downsample.1", convolved(x, state[f"{name}.downsample.0.weight"], stride))


def convolved(x: Array, weight: Array, stride: int) -> Array:
    """Return the convolution of `x` with weights `[out, in, k, k]`, padded with `k // 2` zeros on each side."""
    out, _, k, _ = weight.shape
    border = (k // 2, k // 2)
    windows = sliding_window_view(np.pad(x, ((0, 0), border, border, (0, 0))), (k, k), (1, 2))[:, ::stride, ::stride]
    rows = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, k * k * x.shape[3])
    products = rows @ weight.transpose(2, 3, 1, 0).reshape(-1, out)
    return products.reshape(*windows.shape[:3], out)


def normalised(state: State, name: str, x: Array) -> Array:
    """Return BatchNorm `name` of `x`, with its running statistics."""
    weight, bias, mean, variance = (
        state[f"{name}.{part}"] for part in ("weight", "bias", "running_mean", "running_var")
    )
    y: Array = (x - mean) / np.sqrt(variance + EPSILON) * weight + bias
    return y


def relu(x: Array) -> Array:
    """Return the ReLU of `x`."""
    return np.maximum(x, 0)


def max_pooled(x: Array) -> Array:
    """Return the 3x3 max-pool of `x` with stride 2 and a padding of 1."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    return np.asarray(sliding_window_view(padded, (3, 3), (1, 2))[:, ::2, ::2].max((4, 5)))

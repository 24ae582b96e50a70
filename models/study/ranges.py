"""The ranges of a recipe's activations, from training images. Imports no torch."""

from pathlib import Path

import numpy as np

from models import cifar10, files
from models.calibrate import Range
from models.engines.network import FoldedLayer
from models.study.observers import OBSERVERS, Seen, watch
from models.study.recipes import Recipe
from models.topology import Network

IMAGES = 512
"""Training images to calibrate on."""
SEED = 0


def images_for(data: Path, count: int = IMAGES, seed: int = SEED) -> cifar10.Images:
    """Return so many random training images."""
    images, _ = cifar10.read(data, "train")
    return np.ascontiguousarray(images[np.sort(np.random.default_rng(seed).permutation(len(images))[:count])])


def chosen(network: Network[FoldedLayer], recipe: Recipe, seen: dict[str, Seen]) -> dict[str, Range]:
    """Return the range of every convolution's output. The head's input has at least 8 bits."""
    observe, last = OBSERVERS[recipe.observer], list(network)[-2].spec.name
    bits = {name: max(8, recipe.activation_bits) if name == last else recipe.activation_bits for name in seen}
    return {name: observe(one, 2 ** bits[name]) for name, one in seen.items()}


def of_recipe(network: Network[FoldedLayer], recipe: Recipe, images: cifar10.Images) -> dict[str, Range]:
    """Return the ranges of a recipe over `[N, 3, S, S] uint8` images."""
    return chosen(network, recipe, watch(network, images))


def identity(images: cifar10.Images) -> str:
    """Return a hash of the images."""
    return files.sha256(images.tobytes())[:16]

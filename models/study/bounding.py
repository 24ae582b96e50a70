"""What `models.quantize --max-drop` does: an INT8 network with some layers in FP32, its loss and its cost in time.

Imports no torch.
"""

import time
from dataclasses import replace
from pathlib import Path
from statistics import median

import numpy as np

from common import machine
from models import cifar10, files, preprocess
from models.card import Card, names_of
from models.engines import openvino
from models.engines.network import FoldedLayer
from models.engines.quantized import QuantizedLayer, narrowed
from models.files import CheckpointError
from models.sample import IMAGES_SUFFIX, Labelled, labelled_sample
from models.study import bound, rounding, running
from models.topology import Network

CALLS = 30
"""Timed calls for one image, after as many that are not timed."""


def labels_mean_classes(network: Network[FoldedLayer], card: Card) -> None:
    """Check that the labels of CIFAR-10's test images mean the checkpoint's classes.

    Raises:
        CheckpointError: it has others, or in another order.
    """
    names = names_of(card, network.architecture.classes)
    if names != cifar10.CLASSES:
        raise CheckpointError(
            f"the checkpoint has the classes {', '.join(names)}, and is judged on CIFAR-10's: "
            f"{', '.join(cifar10.CLASSES)}, in this order"
        )


def labelled(path: Path, card: Card, network: Network[FoldedLayer], data: Path, count: int) -> Labelled:
    """Return at most `count` labelled images: those beside the checkpoint, else CIFAR-10's test images in `data`.

    Raises:
        CheckpointError, DatasetError: neither fits the checkpoint, or is there.
    """
    own = labelled_sample(path, card) if files.beside(path, IMAGES_SUFFIX).exists() else None
    if own is None:
        labels_mean_classes(network, card)
        own = Labelled(*cifar10.read(data, "test"), cifar10.CLASSES, "CIFAR-10's test set")
    inputs = network.input
    own = own.first(count)
    return replace(own, images=preprocess.resized(own.images, inputs.side, inputs.resize))


def within(
    exact: Network[FoldedLayer],
    network: Network[QuantizedLayer],
    shown: Labelled,
    max_drop: float,
) -> tuple[Network[QuantizedLayer], str]:
    """Return the network with the fewest layers in FP32 whose loss is within `max_drop` (0 to 1), and a sentence on it.

    Args:
        exact: the FP32 network.
        network: the same, quantized.
        shown: labelled images of the network's size; the more, the narrower the interval that must be within.
        max_drop: the most that top-1 may lose.
    """
    threads, images = machine.available_cores(), shown.images
    reference = running.answers(openvino.floating(exact, threads).forward, images, "fp32")
    everything = frozenset(layer.spec.name for layer in network)
    choose = bound.blend(network, rounding.kept_floating(network, exact, everything))
    found = bound.search(choose, reference, images, shown.labels, max_drop, threads)
    mixed = choose(frozenset(found.kept))
    before, after = (milliseconds(one, images[:1], threads) for one in (network, mixed))
    return mixed, f"{bound.said(found, 'FP32')}; one image takes {after:.2f} ms, {before:.2f} ms all in INT8"


def milliseconds(network: Network[QuantizedLayer], image: cifar10.Images, threads: int) -> float:
    """Return the median time of one image on this CPU's kernels."""
    served = network if machine.has_vnni() else narrowed(network)
    forward, pixels = openvino.int8(served, threads).forward, np.ascontiguousarray(image)
    seconds = []
    for _ in range(2 * CALLS):
        began = time.perf_counter()
        forward(pixels)
        seconds.append(time.perf_counter() - began)
    return 1000 * median(seconds[CALLS:])

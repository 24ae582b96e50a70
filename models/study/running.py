"""The answers of quantized networks: by OpenVINO's integer kernels where they are exact, else in FP32. No torch."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from common import machine
from models import cifar10
from models.engines import openvino
from models.engines.quantized import SAFE_LIMIT, QuantizedLayer
from models.topology import Network

BATCH = 64

Forward = Callable[[cifar10.Images], NDArray[np.float32]]
"""`[N, 3, S, S] uint8` to `[N, classes] float32`."""


def is_exact(network: Network[QuantizedLayer]) -> bool:
    """Return whether this CPU's integer kernels compute the network exactly.

    Without VNNI sums of pairs of products in 16 bits can saturate, unless every integer weight is small.
    """
    integers = (np.abs(layer.weight.astype(np.int16)).max() for layer in network if not layer.is_floating)
    return machine.has_vnni() or max(integers, default=0) <= SAFE_LIMIT


def forward(network: Network[QuantizedLayer], threads: int) -> Forward:
    """Return the network as a function. Where kernels would not be exact it runs simulated, in FP32."""
    return openvino.int8(network, threads, simulated=not is_exact(network)).forward


def answers(run: Forward, images: cifar10.Images, title: str) -> NDArray[np.float32]:
    """Return the logits of all images, with a progress bar."""
    parts = []
    with tqdm(total=len(images), desc=title, unit="img", leave=False) as bar:
        for first in range(0, len(images), BATCH):
            parts.append(run(np.ascontiguousarray(images[first : first + BATCH])))
            bar.update(len(parts[-1]))
    return np.concatenate(parts)

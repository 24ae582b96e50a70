"""The calibration of INT8: run the FP32 network on images and choose a range for each convolution's output.

Imports no torch.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from common import machine
from models import calibration, cifar10, files, pictures, preprocess
from models.calibration import Calibration
from models.engines import openvino
from models.engines.network import FoldedLayer
from models.files import CheckpointError
from models.topology import Network, affordable

BINS = 2048
"""Of the histogram of each output."""
BATCH = 16
"""Images at once; the outputs of an image of 32 pixels take 2.5 MB."""
SHRINKS = np.linspace(0.3, 1.0, 141)
"""Shares of the observed range that `mse` tries."""
METHODS = ("mse", "percentile", "minmax")
"""The first is the default, by measurement: logit SQNR 37.9 dB with mse, 31.1 with percentile, 37.0 with minmax; top-1
agreement 99.8, 99.7 and 99.7 % (512 training images, 1,000 test images, a checkpoint of 84 % accuracy)."""
MOST_IMAGES = 512
"""Images to calibrate on unless a caller says otherwise; more change the ranges little."""
Range = tuple[float, float]
"""`(low, high)` of an output's values."""


def calibrate(
    network: Network[FoldedLayer], images: cifar10.Images, method: str = "mse", *, shows_progress: bool = False
) -> dict[str, Range]:
    """Return the range of every convolution's output over the images, by name.

    Args:
        network: the FP32 network.
        images: `[N, 3, S, S] uint8`, S the network's input side; other images than the ones it is evaluated on.
        method: `minmax`; `percentile`, which cuts 0.01 % of the values; or `mse`, which minimises the squared error of
            8-bit rounding and clipping.
        shows_progress: True shows a bar on a terminal.
    """
    run = openvino.outputs(network)
    starts = tqdm(range(0, len(images), BATCH), "ranges", leave=False, disable=None if shows_progress else True)
    batches = (images[first : first + BATCH] for first in starts)
    extremes = widest([{name: (float(y.min()), float(y.max())) for name, y in run(batch).items()} for batch in batches])
    if method == "minmax":
        return extremes
    counts = {name: np.zeros(BINS) for name in extremes}
    starts = tqdm(range(0, len(images), BATCH), "histograms", leave=False, disable=None if shows_progress else True)
    for first in starts:
        for name, y in run(images[first : first + BATCH]).items():
            counts[name] += histogram(y, extremes[name])
    choosers: dict[str, Callable[[np.ndarray, Range], Range]] = {"mse": least_error, "percentile": percentile}
    choose = choosers[method]
    return {name: choose(counts[name], extremes[name]) for name in extremes}


def widest(seen: Sequence[Mapping[str, Range]]) -> dict[str, Range]:
    """Return, by name, the range that includes 0 and all of the ranges."""
    return {
        name: (min(0.0, *(ranges[name][0] for ranges in seen)), max(0.0, *(ranges[name][1] for ranges in seen)))
        for name in seen[0]
    }


def histogram(values: NDArray[np.float32], extremes: Range) -> NDArray[np.int64]:
    """Return how many of the values lie in each of BINS equal parts of the range that includes them all."""
    low, high = extremes
    position = (values.ravel() - np.float32(low)) * np.float32(BINS / (high - low))
    return np.bincount(np.minimum(position.astype(np.int32), BINS - 1), minlength=BINS)


def percentile(counts: np.ndarray, extremes: Range, cut: float = 1e-4) -> Range:
    """Return the range that leaves out the share `cut` of the values at each end that is not 0."""
    low, high = extremes
    edges = np.linspace(low, high, BINS + 1)
    below = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    bottom = float(edges[np.searchsorted(below, cut) - 1]) if low < 0 else 0.0
    return bottom, float(edges[np.searchsorted(below, 1 - cut)])


def least_error(
    counts: np.ndarray, extremes: Range, levels: int = 256, shrinks: NDArray[np.float64] = SHRINKS
) -> Range:
    """Return the range, shrunk from `extremes`, whose rounding and clipping to `levels` has the least squared error."""
    low, high = extremes
    counts = counts.copy()
    if low == 0:
        counts[0] = 0  # mostly exact zeros of the ReLU, which every range represents exactly
    centres = low + (np.arange(BINS) + 0.5) * (high - low) / BINS

    def error(shrink: float) -> float:
        step = shrink * (high - low) / (levels - 1)
        offset = round(-low * shrink / step)
        rounded = (np.clip(np.round(centres / step) + offset, 0, levels - 1) - offset) * step
        # A bin is narrower than a step, and its values are spread: inside the range the mean error is step**2 / 12.
        inside = (centres > shrink * low) & (centres < shrink * high)
        return float((counts * np.where(inside, step**2 / 12, (centres - rounded) ** 2)).sum())

    best = min(shrinks, key=error)
    return low * float(best), high * float(best)


def at_load(network: Network[FoldedLayer], checkpoint_sha256: str, folder: Path | None) -> Calibration:
    """Return a calibration on the images in `folder` (None: the bundled sample), from the cache or computed and cached.

    Raises:
        CheckpointError: no picture in the folder can be read.
    """
    most = affordable(network.map(lambda layer: layer.spec), MOST_IMAGES)
    if folder:
        images = pictures.read(folder, network.input.side, most, network.input.resize)
    else:
        images = cifar10.sample()[0][:most]
    place = files.place(
        "calibration", ".json", checkpoint=checkpoint_sha256, input=network.input.as_json(), method=METHODS[0],
        bins=BINS, images=files.sha256(images.tobytes()), openvino=machine.version("openvino"),
    )  # fmt: skip
    if place:
        with suppress(CheckpointError, OSError):  # not cached yet, damaged, or in a folder without permission
            return calibration.load(place, checkpoint_sha256)
    pixels = preprocess.resized(images, network.input.side, network.input.resize)
    ranges = calibrate(network, pixels, METHODS[0])
    found = Calibration(checkpoint_sha256, METHODS[0], len(pixels), 0, ranges, network.input)
    files.store(place, found.to_json())
    return found

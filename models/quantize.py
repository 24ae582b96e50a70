"""Calibrate INT8 activations on training images: `python -m models.quantize --data DIR --checkpoint FILE`.

Writes `NAME.int8.json`, which the `int8` variant uses, beside the checkpoint (or into --out). Takes seconds. A
checkpoint without one is calibrated at load (`at_load`).
"""

import argparse
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from models import cache, calibration, checkpoint, cifar10, preprocess
from models.calibration import Calibration
from models.checkpoint import ARTIFACT_SUFFIX, CheckpointError
from models.engines import quantized
from models.engines.network import FoldedLayer, assemble, fold, max_pool, mean_and_scale
from models.flags import add_preparation, positive, preparation_of, whole
from models.sample import packed_logits
from models.selftest import SUFFIX
from models.topology import Network

BINS = 2048
SHRINKS = np.linspace(0.3, 1.0, 141)
# The default by measurement: logit SQNR 37.9 dB with mse, 37.0 with minmax, 31.1 with percentile; top-1 agreement 99.8,
# 99.7 and 99.7 % (calibrated on 512 training images, 1,000 test images, a checkpoint of 84 %).
METHODS = ("mse", "percentile", "minmax")
IMAGE_SUFFIXES = (".png", ".jpg", ".jpeg", ".webp")
MOST_IMAGES = 512
Range = tuple[float, float]


@torch.inference_mode()
def observe(network: Network[FoldedLayer], images: cifar10.Images, record: Callable[[str, Tensor], None]) -> None:
    """Run the FP32 network on `[N, 3, H, W] uint8` and hand every convolution's output to `record`."""

    def convolve(layer: FoldedLayer, x: Tensor) -> Tensor:
        return F.conv2d(x, layer.weight, layer.bias, layer.spec.stride, layer.weight.shape[2] // 2)

    def noted(layer: FoldedLayer, y: Tensor, *, relu: bool) -> Tensor:
        y = F.relu(y) if relu else y
        record(layer.spec.name, y)
        return y

    features = assemble(
        network,
        lambda layer: lambda x: noted(layer, convolve(layer, x), relu=layer.spec.relu),
        lambda layer: lambda x, accumulator: noted(layer, convolve(layer, x) + accumulator, relu=True),
        max_pool,
    )
    mean, scale = mean_and_scale(network.input)
    for batch in torch.from_numpy(images).split(64):
        features((batch.float() - mean) * scale)


def calibrate(network: Network[FoldedLayer], images: cifar10.Images, method: str = "mse") -> dict[str, Range]:
    """The range of every convolution's output over the images, by name.

    Args:
        network: the FP32 network.
        images: `[N, 3, H, W] uint8`, as the network takes them; not those that it is judged on.
        method: `minmax`; `percentile`, which cuts 0.01 % of the values; or `mse`, which makes the squared error of
            8-bit rounding and cutting smallest.
    """
    extremes: dict[str, Range] = {}
    histograms: dict[str, Tensor] = {}

    def widen(name: str, y: Tensor) -> None:
        low, high = extremes.get(name, (0.0, 0.0))
        extremes[name] = (min(low, float(y.min())), max(high, float(y.max())))

    def count(name: str, y: Tensor) -> None:
        low, high = extremes[name]
        histograms[name] = histograms.get(name, 0) + torch.histc(y, BINS, low, high).double()

    observe(network, images, widen)
    if method == "minmax":
        return extremes
    observe(network, images, count)
    choose = {"mse": least_error, "percentile": percentile}[method]
    return {name: choose(histograms[name].numpy(), extremes[name]) for name in extremes}


def percentile(counts: np.ndarray, extremes: Range, cut: float = 1e-4) -> Range:
    """The range that leaves out the share `cut` of the values, at the ends that are not 0."""
    low, high = extremes
    edges = np.linspace(low, high, BINS + 1)
    below = np.concatenate([[0], np.cumsum(counts)]) / counts.sum()
    bottom = float(edges[np.searchsorted(below, cut) - 1]) if low < 0 else 0.0
    return bottom, float(edges[np.searchsorted(below, 1 - cut)])


def least_error(counts: np.ndarray, extremes: Range) -> Range:
    """The range, shrunk from `extremes`, whose 8-bit rounding and cutting has the least squared error."""
    low, high = extremes
    counts = counts.copy()
    if low == 0:
        counts[0] = 0  # mostly the exact zeros of the ReLU, which no range rounds
    centres = low + (np.arange(BINS) + 0.5) * (high - low) / BINS

    def error(shrink: float) -> float:
        step = shrink * (high - low) / 255
        offset = round(-low * shrink / step)
        rounded = (np.clip(np.round(centres / step) + offset, 0, 255) - offset) * step
        # a bin is narrower than a step: within it values are spread, so inside the range the error is the step's own
        inside = (centres > shrink * low) & (centres < shrink * high)
        return float((counts * np.where(inside, step**2 / 12, (centres - rounded) ** 2)).sum())

    best = min(SHRINKS, key=error)
    return low * float(best), high * float(best)


def at_load(network: Network[FoldedLayer], checkpoint_sha256: str, folder: Path | None) -> Calibration:
    """The calibration on the images in `folder` (None: the bundled sample), kept for the next start.

    Raises:
        CheckpointError: the folder holds no images.
    """
    images = images_in(folder, network.input.side) if folder else cifar10.sample()[0]
    place = cache.place(
        "calibration", ".json", checkpoint=checkpoint_sha256, input=asdict(network.input), method=METHODS[0],
        bins=BINS, images=checkpoint.sha256(images.tobytes()), torch=torch.__version__,
    )  # fmt: skip
    with suppress(CheckpointError, OSError):  # none yet, damaged, or in a folder that may not be read
        return calibration.load(place, checkpoint_sha256)
    pixels = preprocess.resized(images, network.input.side)
    ranges = calibrate(network, pixels, METHODS[0])
    found = Calibration(checkpoint_sha256, METHODS[0], len(pixels), 0, ranges, network.input)
    cache.store(place, found.to_json())
    return found


def images_in(folder: Path, side: int, most: int = MOST_IMAGES) -> cifar10.Images:
    """The first `most` images of a folder, by name, as `[N, 3, side, side] uint8`.

    Raises:
        CheckpointError: there are none, or one cannot be read.
    """
    try:
        places = sorted(p for p in folder.iterdir() if p.suffix.lower() in IMAGE_SUFFIXES)[:most]
        if not places:
            raise CheckpointError(f"{folder} holds no {', '.join(IMAGE_SUFFIXES)} files to calibrate INT8 on")
        return np.stack([preprocess.to_pixels(Image.open(place), side) for place in places])
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{folder}: the images to calibrate INT8 on cannot be read ({error})") from error


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="python -m models.quantize", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--data", type=Path, default=cifar10.default_root(), help="holds cifar-10-batches-bin/ (%(default)s)"
    )
    parser.add_argument("--checkpoint", type=Path, default=checkpoint.default_path(), help="(%(default)s)")
    parser.add_argument("--out", type=Path, help="where the calibration goes (beside the checkpoint)")
    parser.add_argument("--images", type=positive, default=MOST_IMAGES, help="how many to calibrate on (%(default)s)")
    parser.add_argument("--seed", type=whole, default=0, help="which images (%(default)s)")
    parser.add_argument("--method", choices=METHODS, default="mse", help="how a range is chosen (%(default)s)")
    parser.add_argument(
        "--artifact",
        type=Path,
        metavar=f"NAME{ARTIFACT_SUFFIX}",
        help="also write the INT8 weights, which need no checkpoint, and NAME.sample.npz, which their self-test needs",
    )
    add_preparation(parser)
    args = parser.parse_args(argv)
    if args.artifact and not args.artifact.name.endswith(ARTIFACT_SUFFIX):
        parser.error(f"--artifact: expected a name that ends in {ARTIFACT_SUFFIX}, got {args.artifact.name}")
    try:
        run(args)
    except (cifar10.DatasetError, checkpoint.CheckpointError) as error:
        sys.exit(f"error: {error}")


def run(args: argparse.Namespace) -> None:
    state, card = checkpoint.load(args.checkpoint, preparation_of(args))
    network = fold(state, card)
    side = network.input.side
    if args.calibration_images:
        images = images_in(args.calibration_images, side, args.images)
    else:
        images, _ = cifar10.read(args.data, "train")
        images = images[np.sort(np.random.default_rng(args.seed).permutation(len(images))[: args.images])]
    ranges = calibrate(network, preprocess.resized(images, side), args.method)
    found = Calibration(card.sha256, args.method, len(images), args.seed, ranges, network.input)
    place = checkpoint.beside((args.out or args.checkpoint.parent) / args.checkpoint.name, ".int8.json")
    place.parent.mkdir(parents=True, exist_ok=True)
    calibration.save(found, place)
    source = args.calibration_images or "CIFAR-10's training set"
    print(f"{place}: ranges of {len(ranges)} activations over {len(images)} images of {source}, method {args.method}")
    if args.artifact:
        content = quantized.serialize(
            quantized.quantize(network, ranges, quantized.FULL_LIMIT), card.sha256, found.sha256, card.classes
        )
        args.artifact.parent.mkdir(parents=True, exist_ok=True)
        checkpoint.write(args.artifact, content)
        print(f"{args.artifact}: {len(content):,} bytes, {len(content) / card.bytes:.1%} of the checkpoint's")
        reference = checkpoint.beside(args.artifact, SUFFIX)
        checkpoint.write(reference, packed_logits(state, card, cifar10.sample()[0]))
        print(f"{reference}: the FP32 logits that the artifact's self-test needs")


if __name__ == "__main__":
    main()

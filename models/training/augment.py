"""Training images on their way to the network: crop, flip, cutout, resizing, normalisation."""

import functools
import math

import torch
import torch.nn.functional as F
from torch import Tensor

from models import cifar10
from models.preprocess import SIDE


def augment(pixels: Tensor, flip: Tensor, padding: int, cutout: int, side: int, generator: torch.Generator) -> Tensor:
    """Crop at random, flip, cut out a square, then resize and normalise.

    Args:
        pixels: `[N, 3, 32, 32] uint8`.
        flip: `[N] bool` on the CPU, True for the images to mirror, left to right.
        padding: reflected border in pixels that the 32x32 crop may reach into.
        cutout: side of the square, anywhere within the image, that becomes the training set's mean; 0 for none.
        side: height and width of the result in pixels.
        generator: a CPU generator; equal states give equal batches.

    Returns:
        `[N, 3, side, side] float32, normalised`.
    """
    images = _cropped(pixels, flip, padding, generator)
    if cutout:
        images = _cut_out(images, cutout, generator)
    if side != SIDE:
        images = F.interpolate(images, size=(side, side), mode="bilinear", antialias=True, align_corners=False)
    return normalise(images)


def _cropped(pixels: Tensor, flip: Tensor, padding: int, generator: torch.Generator) -> Tensor:
    count, device = len(pixels), pixels.device
    window = torch.arange(SIDE, device=device)
    padded = F.pad(pixels.float(), (padding,) * 4, mode="reflect")
    offsets = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator).to(device, non_blocking=True)
    rows = offsets[0] + window
    columns = torch.where(flip.to(device, non_blocking=True)[:, None], offsets[1] + window.flip(0), offsets[1] + window)
    index = torch.arange(count, device=device)[:, None, None, None]
    channel = torch.arange(3, device=device)[None, :, None, None]
    return padded[index, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _cut_out(images: Tensor, cutout: int, generator: torch.Generator) -> Tensor:
    device = images.device
    window = torch.arange(SIDE, device=device)
    corners = torch.randint(0, SIDE - cutout + 1, (2, len(images), 1), generator=generator)
    corners = corners.to(device, non_blocking=True)
    down, across = ((window >= corner) & (window < corner + cutout) for corner in corners)
    square = down[:, None, :, None] & across[:, None, None, :]
    return torch.where(square, _mean_and_std(device)[0], images)


def cut_mix(images: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor, float]:
    """Put a box of another image of the batch into each image: CutMix (https://arxiv.org/abs/1905.04899).

    The box has a random centre and a random area, and is the same for the whole batch.

    Args:
        images: `[N, 3, side, side]`.
        generator: a CPU generator; equal states give equal boxes.

    Returns:
        The mixed images; for each image the number of the one in its box, `[N] int64`; the share (0 to 1) of each image
        outside the box.
    """
    side = images.shape[2]
    area, *centre = torch.rand(3, generator=generator).tolist()
    half = side * math.sqrt(area) / 2
    rows, columns = (slice(max(0, round(side * c - half)), min(side, round(side * c + half))) for c in centre)
    other = torch.randperm(len(images), generator=generator).to(images.device, non_blocking=True)
    mixed = images.clone()
    mixed[:, :, rows, columns] = images[:, :, rows, columns][other]
    return mixed, other, 1 - (rows.stop - rows.start) * (columns.stop - columns.start) / side**2


def normalise(pixels: Tensor) -> Tensor:
    """Return `[N, 3, H, W]` pixels of 0 to 255 as float32 with the training set's mean 0 and standard deviation 1."""
    mean, std = _mean_and_std(pixels.device)
    return (pixels.float() - mean) / std


@functools.cache
def _mean_and_std(device: torch.device) -> tuple[Tensor, Tensor]:
    """Return the mean and standard deviation of each channel, on the scale 0 to 255, each `[3, 1, 1] float32`."""
    mean, std = (torch.tensor(values, device=device).view(3, 1, 1) * 255 for values in (cifar10.MEAN, cifar10.STD))
    return mean, std

"""Training images on their way to the network: crop, flip, cutout, resizing, normalisation."""

import torch
import torch.nn.functional as F
from torch import Tensor

from models import cifar10
from models.preprocess import SIDE


def augment(pixels: Tensor, flip: Tensor, padding: int, cutout: int, side: int, generator: torch.Generator) -> Tensor:
    """Crop at random, flip, cut out a square, then resize and normalise.

    Args:
        pixels: `[N, 3, 32, 32] uint8`.
        flip: `[N] bool`, True for the images to mirror, left to right.
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
    count, window = len(pixels), torch.arange(SIDE)
    padded = F.pad(pixels.float(), (padding,) * 4, mode="reflect")
    offsets = torch.randint(0, 2 * padding + 1, (2, count, 1), generator=generator)
    columns = torch.where(flip[:, None], offsets[1] + window.flip(0), offsets[1] + window)
    rows, columns = (offsets[0] + window).to(pixels.device), columns.to(pixels.device)
    index = torch.arange(count, device=pixels.device)[:, None, None, None]
    channel = torch.arange(3, device=pixels.device)[None, :, None, None]
    return padded[index, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _cut_out(images: Tensor, cutout: int, generator: torch.Generator) -> Tensor:
    window = torch.arange(SIDE)
    corners = torch.randint(0, SIDE - cutout + 1, (2, len(images), 1), generator=generator)
    down, across = ((window >= corner) & (window < corner + cutout) for corner in corners)
    square = (down[:, None, :, None] & across[:, None, None, :]).to(images.device)
    return torch.where(square, torch.tensor(cifar10.MEAN, device=images.device).view(3, 1, 1) * 255, images)


def normalise(pixels: Tensor) -> Tensor:
    """Return `[N, 3, H, W]` pixels of 0 to 255 as float32 with the training set's mean 0 and standard deviation 1."""
    mean = torch.tensor(cifar10.MEAN, device=pixels.device).view(3, 1, 1) * 255
    std = torch.tensor(cifar10.STD, device=pixels.device).view(3, 1, 1) * 255
    return (pixels.float() - mean) / std

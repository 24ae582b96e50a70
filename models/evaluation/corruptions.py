"""Corruptions of real images at five severities, as functions of uint8 images.

Formulas and parameters are those of CIFAR-10-C (Hendrycks and Dietterich, "Benchmarking Neural Network Robustness to
Common Corruptions and Perturbations", 2019; `make_cifar_c.py` in hendrycks/robustness), with a fixed seed.
"""

import io
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from models.cifar10 import Images

SEED = 2019
CHUNK = 3_000_000
"""Values that are floats at the same time, which bounds the memory."""
Corruption = Callable[[Images, float], Images]
Floats = NDArray[np.float64]
"""Images `[N, 3, H, W]` on the scale 0 to 1."""


def jpeg(images: Images, quality: float) -> Images:
    """Compress each image as JPEG and decode it."""
    return np.stack([_through_jpeg(image, int(quality)) for image in images])


def _through_jpeg(image: Images, quality: int) -> Images:
    buffer = io.BytesIO()
    Image.fromarray(image.transpose(1, 2, 0)).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer)).transpose(2, 0, 1)


def noise(images: Images, deviation: float) -> Images:
    """Add Gaussian noise. An image's noise does not depend on the images after it."""
    random = np.random.default_rng(SEED)
    return _changed(images, lambda x: x + random.normal(0, deviation, x.shape))


def blur(images: Images, sigma: float) -> Images:
    """Blur with a Gaussian, cut off at four sigma, the border repeated outwards (as in scikit-image)."""
    radius = int(4 * sigma + 0.5)
    offsets = np.arange(-radius, radius + 1)
    weights = np.exp(-0.5 * (offsets / sigma) ** 2)
    weights /= weights.sum()

    def blurred(x: Floats) -> Floats:
        for axis in (2, 3):
            widths = [(radius, radius) if i == axis else (0, 0) for i in range(4)]
            padded, length = np.pad(x, widths, mode="edge"), x.shape[axis]
            x = sum(w * padded.take(range(i, i + length), axis) for i, w in enumerate(weights))
        return np.asarray(x)

    return _changed(images, blurred)


def contrast(images: Images, factor: float) -> Images:
    """Scale each channel's distance from its mean."""

    def scaled(x: Floats) -> Floats:
        mean = x.mean((2, 3), keepdims=True)
        return np.asarray((x - mean) * factor + mean)

    return _changed(images, scaled)


def brightness(images: Images, shift: float) -> Images:
    """Raise the value (largest channel); keep hue and saturation."""

    def raised(x: Floats) -> Floats:
        value = x.max(1, keepdims=True)
        higher = np.minimum(value + shift, 1)
        return np.asarray(np.where(value > 0, x * higher / np.where(value > 0, value, 1), higher))

    return _changed(images, raised)


def _changed(images: Images, change: Callable[[Floats], Floats]) -> Images:
    """Return the images after a change on the scale 0 to 1, part by part."""
    count = max(1, CHUNK // images[0].size)
    parts = (images[i : i + count] / 255 for i in range(0, len(images), count))
    return np.concatenate([_pixels(change(part)) for part in parts])


def _pixels(x: Floats) -> Images:
    """Convert 0 to 1 to uint8, rounding down as the authors do. The small term undoes rounding errors of the floats."""
    return (x.clip(0, 1) * 255 + 1e-9).astype(np.uint8)


CORRUPTIONS: dict[str, tuple[Corruption, tuple[float, ...]]] = {
    "jpeg": (jpeg, (80, 65, 58, 50, 40)),
    "noise": (noise, (0.04, 0.06, 0.08, 0.09, 0.10)),
    "blur": (blur, (0.4, 0.6, 0.7, 0.8, 1.0)),
    "contrast": (contrast, (0.75, 0.5, 0.4, 0.3, 0.15)),
    "brightness": (brightness, (0.05, 0.1, 0.15, 0.2, 0.3)),
}
"""By name: the function, and its parameter for severities 1 to 5."""
ALL = tuple(f"{name}@{severity}" for name in CORRUPTIONS for severity in (1, 3, 5))


def corrupt(images: Images, condition: str) -> Images:
    """Return `[N, 3, H, W] uint8` images under the condition `NAME@SEVERITY`."""
    name, _, severity = condition.partition("@")
    function, parameters = CORRUPTIONS[name]
    return function(images, parameters[int(severity) - 1])


def parse(text: str) -> tuple[str, ...]:
    """Return the conditions that the text names: `none`, `all`, or a list such as `jpeg@3,noise@5`.

    Raises:
        ValueError: a name or a severity does not exist; says what was expected.
    """
    if text in ("none", "all"):
        return ALL if text == "all" else ()
    conditions = tuple(part.strip() for part in text.split(","))
    for condition in conditions:
        name, _, severity = condition.partition("@")
        if name not in CORRUPTIONS or severity not in set("12345"):
            raise ValueError(
                f"{condition!r}: expected none, all, or NAME@SEVERITY with a name of {', '.join(CORRUPTIONS)} "
                "and a severity of 1 to 5"
            )
    return conditions

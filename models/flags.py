"""Flags and their types that several commands share."""

import argparse
import re
from dataclasses import replace
from pathlib import Path

from models.card import Preparation
from models.topology import RESIZES, SIDES
from models.variants import VARIANTS

LIKE = {
    "imagenet": Preparation(224, (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), resize=256),
}
"""Preparations by name: `imagenet` is the one of torchvision's weights for ImageNet
(https://docs.pytorch.org/vision/stable/models.html)."""


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add the flags that say what a checkpoint's images and classes are."""
    add = parser.add_argument
    add("--like", choices=LIKE, help="imagenet: input size 224, resize 256, ImageNet's mean and std")
    add("--input-size", type=input_size, help="height and width of the checkpoint's images (from its card, else 32)")
    add("--resize", type=resize, help="resize the shorter side to this many pixels, then cut the centre out")
    add("--mean", type=channels, help="per channel, 0 to 1, comma-separated (from its card, else CIFAR-10's)")
    add("--std", type=channels, help="per channel, 0 to 1, comma-separated (from its card, else CIFAR-10's)")
    add("--classes", type=Path, metavar="FILE", help="names of the classes, one a line (from its card)")
    add(
        "--max-pool", action=argparse.BooleanOptionalAction,
        help="a max-pool follows the stem (from its card, else as the stem usually has it: 7x7 yes, 3x3 no)",
    )  # fmt: skip


def input_of(args: argparse.Namespace) -> Preparation:
    """Return the flags of `add_input`."""
    return like(
        args.like,
        Preparation(
            args.input_size, args.mean, args.std, classes=args.classes, max_pool=args.max_pool, resize=args.resize
        ),
    )


def like(name: str | None, said: Preparation) -> Preparation:
    """Return what was said, completed with the values of the row of LIKE; None completes nothing."""
    if name is None:
        return said
    fields = ("input_size", "mean", "std", "resize")
    return replace(said, **{field: getattr(LIKE[name], field) for field in fields if getattr(said, field) is None})


def add_preparation(parser: argparse.ArgumentParser) -> None:
    """Add the flags of `add_input`, and --calibration-images."""
    add_input(parser)
    parser.add_argument(
        "--calibration-images", type=Path, metavar="DIR",
        help="calibrate INT8 on the PNG, JPEG and WebP pictures in this folder and its subfolders, which take turns",
    )  # fmt: skip


def preparation_of(args: argparse.Namespace) -> Preparation:
    """Return the flags of `add_preparation`."""
    return replace(input_of(args), calibration_images=args.calibration_images)


def whole(text: str) -> int:
    """Parse a whole number from 0."""
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"expected a whole number, got {text!r}")
    return int(text)


def positive(text: str) -> int:
    """Parse a whole number from 1."""
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, got {text!r}")
    return int(text)


def device(text: str) -> str:
    """Parse `cpu`, `cuda` or `cuda:N`, without asking whether the machine has it."""
    if not re.fullmatch(r"cpu|cuda(:\d+)?", text):
        raise argparse.ArgumentTypeError(f"expected cpu, cuda or cuda:N, got {text!r}")
    return text


def input_size(text: str) -> int:
    """Parse the height and width of images in pixels."""
    return _within(SIDES, text)


def resize(text: str) -> int:
    """Parse the length of the shorter side of an image in pixels."""
    return _within(RESIZES, text)


def _within(numbers: range, text: str) -> int:
    if not text.isdecimal() or int(text) not in numbers:
        raise argparse.ArgumentTypeError(f"expected a whole number from {numbers[0]} to {numbers[-1]}, got {text!r}")
    return int(text)


def channels(text: str) -> tuple[float, float, float]:
    """Parse three numbers, one per colour channel."""
    try:
        red, green, blue = (float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"expected three numbers such as 0.485,0.456,0.406, got {text!r}") from None
    if not all(0 <= value <= 1 for value in (red, green, blue)):
        raise argparse.ArgumentTypeError(f"expected numbers on the scale 0 to 1, got {text!r}")
    return red, green, blue


def variants(text: str) -> tuple[str, ...]:
    """Parse different names of variants, comma-separated."""
    names = tuple(name.strip() for name in text.split(","))
    if set(names) - set(VARIANTS) or len(set(names)) != len(names):
        raise argparse.ArgumentTypeError(f"expected distinct names of {', '.join(VARIANTS)}, got {text!r}")
    return names

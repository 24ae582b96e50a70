"""Flags and their types that several commands share."""

import argparse
import re
from dataclasses import replace
from pathlib import Path

from models.card import Preparation
from models.topology import SIDES


def add_input(parser: argparse.ArgumentParser) -> None:
    """Add --input-size, --mean and --std."""
    add = parser.add_argument
    add("--input-size", type=input_size, help="height and width of the checkpoint's images (from its card, else 32)")
    add("--mean", type=channels, help="per channel, 0 to 1, comma-separated (from its card, else CIFAR-10's)")
    add("--std", type=channels, help="per channel, 0 to 1, comma-separated (from its card, else CIFAR-10's)")


def input_of(args: argparse.Namespace) -> Preparation:
    """Return the flags of `add_input`."""
    return Preparation(args.input_size, args.mean, args.std)


def add_preparation(parser: argparse.ArgumentParser) -> None:
    """Add --input-size, --mean, --std and --calibration-images."""
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
    if not text.isdecimal() or int(text) not in SIDES:
        raise argparse.ArgumentTypeError(f"expected a whole number from {SIDES[0]} to {SIDES[-1]}, got {text!r}")
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

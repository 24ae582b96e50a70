"""A contact sheet of the images that exactly one of two variants gets right."""

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from models.evaluation.statistics import Paired
from models.sample import Labelled

COLUMNS = 10
THUMB = 96
LINE = 13
CELL = (THUMB + 16, THUMB + 3 * LINE + 14)
MARGIN = 12
HEADER = 40
LIMIT = 200
"""The most images on one sheet."""
INK, GOOD, BAD = "#1a1a1a", "#0b6b2f", "#a4161a"

Picks = NDArray[np.int64]
"""Class indices, `[N]`."""


def draw(labelled: Labelled, picks: tuple[Picks, Picks], names: tuple[str, str], paired: Paired) -> Image.Image:
    """Draw the discordant images, each with its label and both variants' answers, right answers in green.

    Args:
        labelled: the N images.
        picks: the class indices that the reference and the variant choose, each `[N]`.
        names: the reference and the variant.
        paired: their comparison; its first LIMIT `discordant` images are drawn.
    """
    labels, classes = labelled.labels, labelled.classes
    shown = paired.discordant[:LIMIT]
    rows = max(1, -(-len(shown) // COLUMNS))
    sheet = Image.new("RGB", (COLUMNS * CELL[0] + 2 * MARGIN, HEADER + rows * CELL[1] + MARGIN), "white")
    pen, font = ImageDraw.Draw(sheet), ImageFont.load_default(11)
    cut = f", the first {LIMIT} shown" if len(shown) < len(paired.discordant) else ""
    title = (
        f"{names[1]} against {names[0]}: {len(paired.discordant)} of {len(labels):,} images that exactly one gets "
        f"right ({paired.only_reference_right} only {names[0]}, {paired.only_variant_right} only {names[1]}){cut}"
    )
    pen.text((MARGIN, 12), title, INK, ImageFont.load_default(15))
    for position, index in enumerate(shown):
        left = MARGIN + position % COLUMNS * CELL[0]
        top = HEADER + position // COLUMNS * CELL[1]
        thumb = Image.fromarray(labelled.images[index].transpose(1, 2, 0)).resize(
            (THUMB, THUMB), Image.Resampling.NEAREST
        )
        sheet.paste(thumb, (left, top))
        pen.text((left, top + THUMB + 2), f"{index}: {classes[labels[index]]}", INK, font)
        for line, (name, chosen) in enumerate(zip(names, picks, strict=True), 1):
            colour = GOOD if chosen[index] == labels[index] else BAD
            pen.text((left, top + THUMB + 2 + line * LINE), f"{name[:8]}: {classes[chosen[index]]}", colour, font)
    return sheet


def png(sheet: Image.Image) -> bytes:
    """Return the sheet as a PNG file."""
    content = io.BytesIO()
    sheet.save(content, "PNG", optimize=True)
    return content.getvalue()

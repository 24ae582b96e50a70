"""Matplotlib figures as inline SVG. They take text colours and font from the page, so they follow dark mode.

Plotly is no alternative: its script adds over 4 MB to every report, and does not run in a CI's preview or in a mail.
"""

import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

INK, SOFT, LINE, PAPER = "#1f2933", "#616e7c", "#e4e7eb", "#fffffe"
PAGE = {INK: "var(--ink)", SOFT: "var(--soft)", LINE: "var(--line)", PAPER: "var(--paper)"}
"""The figures' colours, each with the variable of the page that replaces it."""
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#7f7f7f")
"""Okabe and Ito's palette: people with any colour vision can tell its colours apart."""
KNOWN = {"fp32": 0, "int8": 1, "fp16": 2, "int8-dynamic": 3, "fp32-cpu": 4, "bf16-cpu": 5, "fp16-cpu": 6}
"""Variants whose colour is the same in every report."""
STYLE: Any = {
    "svg.fonttype": "none",
    "svg.hashsalt": "loadtest",
    "font.size": 9.5,
    "text.color": INK,
    "axes.edgecolor": LINE,
    "axes.labelcolor": SOFT,
    "axes.labelsize": 9.5,
    "axes.titlesize": 9.5,
    "axes.titlecolor": INK,
    "axes.titlelocation": "left",
    "axes.axisbelow": True,
    "axes.grid": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.facecolor": "none",
    "figure.facecolor": "none",
    "grid.color": LINE,
    "grid.linewidth": 0.8,
    "legend.frameon": False,
    "legend.fontsize": 9,
    "lines.linewidth": 1.8,
    "xtick.color": LINE,
    "ytick.color": LINE,
    "xtick.labelcolor": SOFT,
    "ytick.labelcolor": SOFT,
}
WIDTH = 4.3
"""Width in inches: about that of a phone, so that text does not shrink there."""


@dataclass(frozen=True)
class Chart:
    """A figure for the page."""

    title: str
    alt: str
    """The meaning of the figure in words, with its main numbers: what a reader gets who does not see it."""
    svg: str
    note: str = ""
    """The line below the figure; empty for `alt`."""


def figure(height: float, panels: Sequence[float] = (1.0,)) -> tuple[Figure, list[Axes]]:
    """Return an empty figure with panels of these relative heights. Call it inside `mpl.rc_context(STYLE)`."""
    made = Figure(figsize=(WIDTH, height), layout="constrained")
    axes = made.subplots(len(panels), 1, squeeze=False, height_ratios=panels)
    return made, list(axes[:, 0])


def svg(made: Figure) -> str:
    """Return the figure as an `<svg>` element without ids that fills the width of its place."""
    file = io.StringIO()
    with mpl.rc_context(STYLE):
        made.savefig(file, format="svg", metadata={"Date": None, "Creator": None})
    text = file.getvalue()
    text = text[text.index("<svg") :]
    text = re.sub(r"<metadata>.*?</metadata>", "", text, flags=re.DOTALL)
    text = re.sub(r"<g id=\"[^\"]*\">", "<g>", text)
    text = re.sub(r'(<svg[^>]*?) width="[^"]*"', r"\1", re.sub(r'(<svg[^>]*?) height="[^"]*"', r"\1", text, count=1))
    text = re.sub(r"font: ([\d.]+)px [^;\"]*", r"font-size: \1px", text)
    for colour, variable in PAGE.items():
        text = text.replace(colour, variable)
    return re.sub(r"\s*\n\s*", "\n", text)


def colours(arms: list[str]) -> dict[str, str]:
    """Return a colour for each arm: its variant's own if that is free, else the next free one."""
    wanted = {arm: KNOWN.get(arm.split(" @ ")[0]) for arm in arms}
    chosen: dict[str, int] = {}
    for arm, index in wanted.items():
        free = [i for i in range(len(COLOURS)) if i not in chosen.values()] or [len(COLOURS) - 1]
        chosen[arm] = index if index in free else next((i for i in free if i not in wanted.values()), free[0])
    return {arm: COLOURS[index] for arm, index in chosen.items()}

"""The parts of the page that judge: what to use, and which bars are met. Imports no torch."""

from dataclasses import dataclass

from common.statistics import mcnemar
from models.evaluation.statistics import Paired
from models.study.found import Found
from models.study.recipes import RECIPES, REFERENCE, Recipe
from models.study.results import Outcome
from models.study.tables import interval, markdown, milliseconds

SERVED_RECIPE = "int8-least-squares"
"""The recipe of the variant `int8`: without VNNI the service gives its weights 7 bits."""
LEVEL = 0.05
"""The p below which a recipe is shown to be better."""


@dataclass(frozen=True)
class Bar:
    """What a recipe should reach."""

    recipe: str
    loss: float | None
    """The most points that it may lose; None: no difference from fp32 may be shown."""
    why: str
    """The condition that limits it, as a clause: the page gives it as the reason if the bar is missed."""
    least_top1: float = 0.0
    """In percent."""


BARS = (
    Bar("int8-least-squares", None, "weights are rounded to the nearest and nothing is repaired or trained"),
    Bar("int8-qat", None, "its training is short: the note below its table says how short"),
    Bar("w4a8-adaround", 0.7, "it takes 1,000 steps a layer on 512 images"),
    Bar(
        "w4a4-distilled",
        1.0,
        "its training is short (the note says how short), LSQ's authors train for 90 epochs",
        94.2,
    ),
)


def bars(found: Found) -> str:
    """Return the bars, and by how much each was met or missed."""
    rows = []
    for bar in BARS:
        one = found.outcomes.get(bar.recipe)
        expected = "no difference shown, or better" if bar.loss is None else f"at most {bar.loss} points lost"
        expected += f", above {bar.least_top1} %" if bar.least_top1 else ""
        if one and one.paired:
            measured = f"{interval(one.paired.difference)}, top-1 {100 * one.score.top1.estimate:.2f} %"
            rows.append([bar.recipe, expected, measured, verdict(bar, one)])
        else:
            trains = f"not trained yet: `python -m models.study.qat {bar.recipe}`"
            rows.append([bar.recipe, expected, trains if RECIPES[bar.recipe].is_trained else "not run", ""])
    return "## Bars\n\n" + markdown(("recipe", "bar", "measured", "verdict"), rows, 4)


def verdict(bar: Bar, one: Outcome) -> str:
    """Return whether the bar is met, and by how much it is missed."""
    assert one.paired
    difference, missed = one.paired.difference, []
    if bar.loss is None:
        if difference.high is not None and difference.high < 0:
            missed.append(f"by {-100 * difference.high:.2f} points beyond the interval")
    elif (beyond := round(-100 * difference.estimate - bar.loss, 6)) > 0:
        missed.append(f"by {beyond:.2f} points")
    if (short := bar.least_top1 - 100 * one.score.top1.estimate) >= 0 and bar.least_top1:
        missed.append(f"top-1 by {short:.2f} points")
    return f"missed {', '.join(missed)}: {bar.why}" if missed else "met"


def is_no_worse(one: Outcome) -> bool:
    """Return whether no loss against fp32 is shown."""
    return one.paired is None or (one.paired.difference.high or 0.0) >= 0


def advice(found: Found) -> str:
    """Return what to use when, from the results."""
    rows = [RECIPES[name] for name in found.outcomes]
    equal = [row for row in rows if is_no_worse(found.outcomes[row.name])]
    timed = [row for row in equal if milliseconds(found, row, 1)]
    lines = ["## What to use when\n"]
    if timed:
        fastest = min(milliseconds(found, row, 1) for row in timed)
        best = max((row for row in timed if milliseconds(found, row, 1) <= fastest), key=lambda row: noise(found, row))
        lines.append(
            f"- **On this CPU**: {said(found, best.name)}; no loss is shown, its logits are the nearest to fp32's."
        )
    lines += served(found)
    if smallest := min(equal, key=lambda row: found.outcomes[row.name].file_bytes, default=None):
        lines.append(f"- **Smallest file without a loss that is shown**: {said(found, smallest.name)}.")
    lines += [
        "- **On a GPU from compute capability 7.0**: `fp16`; from 8.0 also `bf16`, which needs no care for overflow.",
        "- **A CPU with AVX512_BF16 or AMX, and no images to calibrate on**: `bf16-cpu`.",
        "- **Loss must stay within a bound**: `python -m models.quantize --max-drop 0.1 --artifact FILE`.",
        "- **4 bits**: only for the size of a file that is unpacked before it runs, with AdaRound or training.",
    ]
    return "\n".join(lines)


def noise(found: Found, row: Recipe) -> float:
    """Return the logit SQNR in dB; infinity if the logits are equal."""
    paired = found.outcomes[row.name].paired
    return float("inf") if paired is None or paired.logit_sqnr_db is None else paired.logit_sqnr_db


@dataclass(frozen=True)
class Rival:
    """A recipe beside the served one, image by image."""

    name: str
    wins: int
    """Images that only it gets right."""
    losses: int
    """Images that only the served one gets right."""

    @property
    def p(self) -> float:
        """Return McNemar's exact p."""
        return mcnemar(self.losses, self.wins)


def rival(name: str, one: Paired, ours: Paired) -> Rival:
    """Return a recipe beside the served one, from the comparison of each with fp32.

    Two that both differ from fp32 on an image, in being right, are equal there.
    """
    apart = len(set(one.discordant) ^ set(ours.discordant))
    ahead = (one.only_variant_right - one.only_reference_right) - (ours.only_variant_right - ours.only_reference_right)
    return Rival(name, (apart + ahead) // 2, (apart - ahead) // 2)


def served(found: Found) -> list[str]:
    """Return whether a recipe with the kernels of the served one is shown to be better than it."""
    ours = found.outcomes.get(SERVED_RECIPE)
    if not ours or not ours.paired:
        return []
    rivals = [
        rival(name, one.paired, ours.paired)
        for name, one in found.outcomes.items()
        if RECIPES[name].runs_as == "int8" and not RECIPES[name].variant and one.paired and name != SERVED_RECIPE
    ]
    head = f"- **The served `int8`** is {said(found, SERVED_RECIPE)}"
    if not (better := [one for one in rivals if one.wins > one.losses]):
        return [f"{head}; no recipe with its kernels is right more often."]
    best = min(better, key=lambda one: one.p)
    corrected = min(1.0, best.p * len(rivals))
    verdict = "so it is shown to be better" if corrected < LEVEL else "so no difference is shown"
    line = (
        f"{head}. Of {len(rivals)} recipes with its kernels `{best.name}` stands out most: {best.wins} images that "
        f"only it gets right, {best.losses} that only the served one does. McNemar's p is {best.p:.2g}, and "
        f"{corrected:.2g} corrected for {len(rivals)} comparisons (Bonferroni), {verdict}."
    )
    return [line]


def said(found: Found, name: str) -> str:
    """Return a recipe with its cost and its loss in words."""
    one, time = found.outcomes[name], milliseconds(found, RECIPES[name], 1)
    against = milliseconds(found, RECIPES[REFERENCE], 1)
    speed = f", {against / time:.1f} x as fast as fp32 for one image" if time and against else ""
    loss = f", {interval(one.paired.difference)} points" if one.paired else ""
    return f"`{name}` ({one.file_bytes / 1e6:.1f} MB{speed}{loss})"

"""The parts of the page that judge: what to use, bars, sensitivity, calibration, toolboxes."""

from dataclasses import dataclass

from models.study.found import Found
from models.study.recipes import RECIPES, REFERENCE
from models.study.results import Outcome
from models.study.sensitivity import Sensitivity
from models.study.sweep import Sweep
from models.study.tables import interval, markdown, milliseconds


@dataclass(frozen=True)
class Bar:
    """What a recipe should reach."""

    recipe: str
    loss: float | None
    """The most points that it may lose; None: no difference from fp32 may be shown."""
    least_top1: float = 0.0
    """In percent."""


BARS = (
    Bar("int8-least-squares", None),
    Bar("int8-qat", None),
    Bar("w4a8-adaround", 0.7),
    Bar("w4a4-distilled", 1.0, 94.2),
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
            rows.append([bar.recipe, expected, "not run", ""])
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
    return f"missed {', '.join(missed)}" if missed else "met"


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
        best = max(
            (row for row in timed if milliseconds(found, row, 1) <= fastest),
            key=lambda row: found.outcomes[row.name].score.top1.estimate,
        )
        lines.append(f"- **On this CPU**: {said(found, best.name)}; no loss against fp32 is shown.")
    if smallest := min(equal, key=lambda row: found.outcomes[row.name].file_bytes, default=None):
        lines.append(f"- **Smallest file without a loss that is shown**: {said(found, smallest.name)}.")
    lines += [
        "- **On a GPU from compute capability 7.0**: `fp16`; from 8.0 also `bf16`, which needs no care for overflow.",
        "- **A CPU with AVX512_BF16 or AMX, and no images to calibrate on**: `bf16-cpu`.",
        "- **Loss must stay within a bound**: `python -m models.quantize --max-drop 0.1`.",
        "- **4 bits**: only for the size of a file that is unpacked before it runs, with AdaRound or training.",
    ]
    return "\n".join(lines)


def said(found: Found, name: str) -> str:
    """Return a recipe with its cost and its loss in words."""
    one, time = found.outcomes[name], milliseconds(found, RECIPES[name], 1)
    against = milliseconds(found, RECIPES[REFERENCE], 1)
    speed = f", {against / time:.1f} x as fast as fp32 for one image" if time and against else ""
    loss = f", {interval(one.paired.difference)} points" if one.paired else ""
    return f"`{name}` ({one.file_bytes / 1e6:.1f} MB{speed}{loss})"


def sensitivity_table(found: Sensitivity) -> str:
    """Return the layers at 8 and 4 bits, the most sensitive at 8 bits first."""
    four = {row.layer: row for row in found.of(4)}
    rows = []
    for row in found.of(8):
        other = four[row.layer]
        cells = []
        for one in (row, other):
            cells += [
                f"{one.only.logit_sqnr_db:.1f}", f"{100 * (one.only.top1 - found.reference_top1):+.1f}",
                f"{one.without.logit_sqnr_db:.1f}", f"{100 * (one.without.top1 - found.reference_top1):+.1f}",
                f"{one.predicted:.2g}",
            ]  # fmt: skip
        rows.append([row.layer, *cells])
    names = ("only it, dB", "points", "all but it, dB", "points", "predicted")
    header = ("layer", *(f"{bits} bits: {name}" for bits in (8, 4) for name in names))
    return (
        "## Sensitivity\n\n"
        f"The first {found.images:,} test images. One image is {100 / found.images:.1f} points, so the SQNR of the "
        "logits ranks the layers. Activations have 8 bits. *Predicted* is the curvature of the loss times the squared "
        "error of the weights; its order agrees with the measured one by a Spearman correlation of "
        f"{found.rank_correlation(8):.2f} at 8 and {found.rank_correlation(4):.2f} at 4 bits.\n\n"
        + markdown(header, rows)
    )


def sweep_table(found: Sweep) -> str:
    """Return the calibrations, and the default that follows from them."""
    spreads = found.spreads()
    rows = [
        [
            one.observer, f"{one.calibration_images:,}", f"{one.sqnr[1]:.1f} [{one.sqnr[0]:.1f}, {one.sqnr[2]:.1f}]",
            f"{100 * one.top1[1]:.2f} [{100 * one.top1[0]:.2f}, {100 * one.top1[2]:.2f}]",
        ]
        for one in spreads
    ]  # fmt: skip
    best = max(spreads, key=lambda one: one.sqnr[0])
    enough = next(one for one in spreads if one.observer == best.observer and best.sqnr[1] - one.sqnr[0] <= ENOUGH_DB)
    return (
        "## Calibration\n\n"
        f"Mean [least, most] over {len({trial.seed for trial in found.trials})} seeds, which choose the images; the "
        f"first {found.images:,} test images. The best worst case has `{best.observer}` with "
        f"{best.calibration_images:,} images; with {enough.calibration_images:,} its worst case is within "
        f"{ENOUGH_DB:g} dB of that mean. The default of `models.quantize` is least squares (`mse`) on 512 images.\n\n"
        + markdown(("observer", "images", "logit SQNR, dB", "top-1, %"), rows, 2)
    )


ENOUGH_DB = 1.0
"""A loss of SQNR that calls for no more images."""


def toolboxes_table(found: Found) -> str:
    """Return outside toolboxes on the same weights, or how to run them."""
    if not found.toolboxes:
        return (
            "## Toolboxes\n\nNot run: NNCF, ONNX Runtime, torchao PT2E and torch's own modes. `make study-toolboxes` "
            "installs them into an environment of their own and adds them to this page."
        )
    rows = []
    for one in found.toolboxes:
        if one.outcome is None:
            rows.append([one.name, f"not run: {one.reason[:120]}", "", "", ""])
            continue
        score, paired = one.outcome.score, one.outcome.paired
        assert paired
        noise = "equal" if paired.logit_sqnr_db is None else f"{paired.logit_sqnr_db:.1f}"
        cells = interval(score.top1, ".2f"), interval(paired.difference), f"{paired.mcnemar_p:.2g}", noise
        rows.append([one.name, *cells])
    header = ("toolbox, its defaults", "top-1, %", "difference", "p", "SQNR, dB")
    return "## Toolboxes on the same weights\n\n" + markdown(header, rows)

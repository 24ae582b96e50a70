"""The parts of the page beside the recipes: sensitivity, calibration, toolboxes, published figures.

Imports no torch.
"""

from dataclasses import dataclass

from models.study.found import Found
from models.study.recipes import RECIPES
from models.study.results import Outcome
from models.study.sensitivity import Cost, Sensitivity
from models.study.sweep import Spread, Sweep
from models.study.tables import interval, markdown

ENOUGH_DB = 1.0
"""A loss of SQNR that calls for no more images."""
DEFAULT = ("least-squares", 512)
"""The observer and the most images of `models.quantize`."""
SERVED = "int8-served"
"""The row that stands beside the toolboxes."""


def sensitivity(found: Sensitivity) -> str:
    """Return the layers at 8 and 4 bits, the most sensitive at 8 bits first."""
    four = {row.layer: row for row in found.of(4)}
    if not (four and found.of(8)):
        return ""

    def said(cost: Cost) -> str:
        return f"{cost.logit_sqnr_db:.1f} ({100 * (cost.top1 - found.reference_top1):+.1f})"

    rows = [
        [
            row.layer,
            *(
                cell
                for one in (row, four[row.layer])
                for cell in (said(one.only), said(one.without), f"{one.predicted:.1g}")
            ),
        ]
        for row in found.of(8)
    ]
    names = ("only it", "all but it", "predicted")
    header = ("layer", *(f"{bits} bits: {name}" for bits in (8, 4) for name in names))
    worst = {bits: ", ".join(f"`{row.layer}`" for row in found.of(bits)[:3]) for bits in (8, 4)}
    return (
        "## Sensitivity\n\n"
        "Logit SQNR in dB, and in brackets the change of top-1 in points, when only one layer is quantized and when "
        "all but that one are. Activations have 8 bits, and so have the weights of the first and the last layer. One "
        f"of the first {found.images:,} test images is {100 / found.images:.1f} points, so the SQNR ranks the layers. "
        f"Quantized alone, {worst[8]} cost most at 8 bits and {worst[4]} at 4 bits. *Predicted* is the curvature of "
        "the loss times the squared error of the weights, computed without a quantized forward; Spearman's "
        "correlation of its order with the measured one is "
        f"{found.rank_correlation(8):.2f} at 8 and {found.rank_correlation(4):.2f} at 4 bits.\n\n"
        + markdown(header, rows)
    )


def calibration(found: Sweep) -> str:
    """Return the calibrations, and the default that follows from them."""
    spreads = found.spreads()
    best = max(spreads, key=lambda one: one.sqnr[0])
    enough = next(one for one in spreads if one.observer == best.observer and best.sqnr[1] - one.sqnr[0] <= ENOUGH_DB)
    top1s = [100 * one.top1[1] for one in spreads]
    return (
        "## Calibration\n\n"
        "Logit SQNR in dB by observer and number of images: mean [least, most] over "
        f"{len({trial.seed for trial in found.trials})} seeds, which choose the images; the first {found.images:,} "
        f"test images. The best worst case has `{best.observer}` with {best.calibration_images:,} images; with "
        f"{enough.calibration_images:,} its worst case is within {ENOUGH_DB:g} dB of that mean. Mean top-1 lies "
        f"between {min(top1s):.2f} and {max(top1s):.2f} %. {_default(spreads, best)}\n\n" + _pivot(spreads)
    )


def _default(spreads: list[Spread], best: Spread) -> str:
    """Return how far the default's worst case lies below the best one."""
    default = next((one for one in spreads if (one.observer, one.calibration_images) == DEFAULT), None)
    below = f"; its worst case is {best.sqnr[0] - default.sqnr[0]:.1f} dB below the best one" if default else ""
    return f"The default of `models.quantize` is least squares (`mse`) on {DEFAULT[1]} images{below}."


def _pivot(spreads: list[Spread]) -> str:
    """Return a row for each observer, a column for each number of images."""
    counts = sorted({one.calibration_images for one in spreads})
    cells = {
        (one.observer, one.calibration_images): f"{one.sqnr[1]:.1f} [{one.sqnr[0]:.1f}, {one.sqnr[2]:.1f}]"
        for one in spreads
    }
    observers = dict.fromkeys(one.observer for one in spreads)
    rows = [[name, *(cells.get((name, count), "") for count in counts)] for name in observers]
    return markdown(("observer", *(f"{count:,} images" for count in counts)), rows)


def toolboxes(found: Found) -> str:
    """Return outside toolboxes on the same weights, or how to run them."""
    if not found.toolboxes:
        return (
            "## Toolboxes\n\nNot run: NNCF, ONNX Runtime, torchao PT2E and torch's own modes. `make study-toolboxes` "
            "installs them into an environment of their own and adds them to this page."
        )
    rows = [_measured(f"this project, `{SERVED}`", found.outcomes[SERVED])] if SERVED in found.outcomes else []
    rows += [
        _measured(one.name, one.outcome) if one.outcome else [one.name, f"not run: {one.reason[:120]}"]
        for one in found.toolboxes
    ]
    header = ("toolbox, its defaults", "top-1, %", "difference", "p", "SQNR, dB")
    return (
        "## Toolboxes on the same weights\n\n"
        "Each with its defaults, calibrated on the 300 bundled images, on the kernels of this CPU. Without VNNI, sums "
        "of pairs of products can saturate in 16 bits unless weights or activations have 7 bits, as the activations "
        "of FBGEMM and x86 and the weights of this project do.\n\n"
        + markdown(header, [row + [""] * (len(header) - len(row)) for row in rows])
    )


def _measured(name: str, one: Outcome) -> list[str]:
    if one.paired is None:
        return [name]
    noise = "equal" if one.paired.logit_sqnr_db is None else f"{one.paired.logit_sqnr_db:.1f}"
    cells = (
        f"{100 * one.score.top1.estimate:.2f}",
        interval(one.paired.difference),
        f"{one.paired.mcnemar_p:.2g}",
        noise,
    )
    return [name, *cells]


@dataclass(frozen=True)
class Published:
    """A published figure of ResNet18, and the recipe of the study that is the nearest to it."""

    source: str
    data: str
    bits: str
    method: str
    quantized: float
    """Top-1 in percent."""
    floating: float | None
    recipe: str


MQBENCH, BREVITAS, HAWQ, QONNX = (
    "[MQBench](https://arxiv.org/abs/2111.03759)", "[Brevitas](https://github.com/Xilinx/brevitas)",
    "[HAWQ](https://github.com/Zhen-Dong/HAWQ)", "[QONNX](https://github.com/fastmachinelearning/qonnx_model_zoo)",
)  # fmt: skip
PUBLISHED = (
    Published(MQBENCH, "ImageNet", "8/8", "post-training", 70.93, 71.06, "int8-least-squares"),
    Published(BREVITAS, "ImageNet", "8/8", "post-training", 69.64, 69.76, "int8-least-squares"),
    Published(HAWQ, "ImageNet", "8/8", "QAT", 71.56, 71.47, "int8-qat"),
    Published(QONNX, "CIFAR-10", "8/8", "QAT", 93.09, 92.82, "int8-qat"),
    Published(MQBENCH, "ImageNet", "4/8", "min-max", 52.25, 71.06, "w4a8-nearest"),
    Published(MQBENCH, "ImageNet", "4/8", "least squares", 54.96, 71.06, "w4a8-least-squares"),
    Published(MQBENCH, "ImageNet", "4/8", "AdaRound", 70.35, 71.06, "w4a8-adaround"),
    Published(HAWQ, "ImageNet", "4/4", "QAT", 68.45, 71.47, "w4a4-distilled"),
    Published(QONNX, "CIFAR-10", "4/4", "QAT", 94.2, None, "w4a4-distilled"),
)


def published(found: Found) -> str:
    """Return published figures beside the nearest recipe."""
    rows = []
    for one in PUBLISHED:
        ours = found.outcomes.get(one.recipe)
        floating = "not said" if one.floating is None else f"{one.floating:.2f}"
        change = "" if one.floating is None else f"{one.quantized - one.floating:+.2f}"
        here = "not trained yet" if RECIPES[one.recipe].is_trained else "not run"
        if ours and ours.paired:
            here = interval(ours.paired.difference)
        rows.append(
            [
                one.source,
                one.data,
                one.method,
                one.bits,
                f"{one.quantized:.2f}",
                floating,
                change,
                f"`{one.recipe}`",
                here,
            ]
        )
    header = (
        "source", "data", "method", "bits W/A", "top-1, %", "floating point", "difference", "here", "difference here",
    )  # fmt: skip
    return (
        "## Beside published figures\n\n"
        "ResNet18 of other trainings, mostly for ImageNet with its 1,000 classes. Compare the differences, not the "
        "accuracies.\n\n" + markdown(header, rows, 3)
    )

"""A report as Markdown: one table of variants, then classes, corruptions and single batches."""

from collections.abc import Callable, Sequence
from statistics import median

from tabulate import tabulate

from common.statistics import Interval
from models.evaluation.batches import Summary
from models.evaluation.report import CLEAN, Report, Result, VariantReport
from models.evaluation.statistics import Paired

Rows = list[list[str]]


def main_table(report: Report) -> str:
    """Return the variants side by side: answers, difference from the reference, sizes, time and memory."""
    variants = report.variants.values()
    rows = [[label, *map(cell, variants)] for label, cell in (*ANSWERS, *SIZES)]
    for size in dict.fromkeys(summary.batch_size for variant in variants for summary in variant.batches):
        for label, batch_cell in BATCHES:
            cells = [batch_cell(next(s for s in v.batches if s.batch_size == size)) for v in variants]
            rows.append([f"batch of {size}: {label}", *cells])
    return markdown(["", *report.variants], rows)


def markdown(header: Sequence[str], rows: Rows) -> str:
    """Return a Markdown table, numbers aligned to the right."""
    align = ("left", *["right"] * (len(header) - 1))
    return tabulate(rows, header, tablefmt="pipe", colalign=align, disable_numparse=True)


def document(report: Report) -> str:
    """Return the whole report as Markdown."""
    first = next(iter(report.variants.values()))
    parts = [
        f"# Evaluation of {', '.join(report.variants)}",
        provenance(report),
        main_table(report),
        NOTES,
        "## By class\n\nTop-1 in percent.",
        classes_table(report),
    ]
    if len(first.results) > 1:
        parts += ["## Under corruption\n\n" + CORRUPTION_NOTES, corruptions_table(report)]
    sheets = [n for n, v in report.variants.items() if (p := v.results[CLEAN].paired) and p.discordant]
    if sheets:
        parts.append("## Images that exactly one gets right")
        parts += [f"![{name} against {report.reference}](discordant-{name}.png)" for name in sheets]
    return "\n\n".join(parts) + "\n"


NOTES = (
    "Brackets are 95 % intervals: Wilson for shares, Bonett and Price (2012) for paired differences; for batches, "
    "the least and the most. McNemar's p is exact. Calibration error: 15 bins. Loading: median of the loads, in this "
    "process. Memory of a batch: beyond the resident weights."
)
CORRUPTION_NOTES = (
    "CIFAR-10-C's formulas and parameters (Hendrycks and Dietterich, 2019), `name@severity`, fixed seed. Differences "
    "in points, agreement in percent, both against the reference on the same corrupted images."
)


def provenance(report: Report) -> str:
    """Return the conditions of the evaluation: command, checkpoint, images, devices, machine, versions."""
    first, machine = next(iter(report.variants.values())), report.machine
    devices = ", ".join(
        f"{name} on {v.info.device} ({v.info.device_name}): {v.info.backend}" for name, v in report.variants.items()
    )
    return "\n".join(
        (
            f"- `{report.command}`, {report.date}",
            f"- checkpoint `{report.checkpoint}`, SHA-256 `{report.checkpoint_sha256}`",
            f"- {first.results[CLEAN].score.images:,} images: {report.data}; paired against `{report.reference}`",
            f"- {devices}",
            f"- {machine['cpu']} ({machine['isa']}), {machine['cores']} cores, {first.info.threads} threads",
            f"- torch {machine['torch']}, OpenVINO {machine['openvino']}, Python {machine['python']}",
            f"- {machine['platform']}",
        )
    )


def classes_table(report: Report) -> str:
    """Return top-1 by class and variant."""
    rows = [
        [name, *(_percent(v.results[CLEAN].score.per_class[name]) for v in report.variants.values())]
        for name in report.classes
    ]
    return markdown(["class", *report.variants], rows)


def corruptions_table(report: Report) -> str:
    """Return the results under corruption, a row per condition and variant."""
    rows = []
    for condition in next(iter(report.variants.values())).results:
        for name, variant in report.variants.items():
            result = variant.results[condition]
            rows.append([condition, name, f"{result.score.images:,}", *(cell(result) for _, cell in UNDER_CORRUPTION)])
    return markdown(["condition", "variant", "images", *(label for label, _ in UNDER_CORRUPTION)], rows)


def _percent(share: float | None) -> str:
    return "" if share is None else f"{share * 100:.2f}"


def _interval(interval: Interval, form: str = ".2f") -> str:
    if interval.low is None or interval.high is None:
        return ""
    return f"{interval.estimate * 100:{form}} [{interval.low * 100:{form}}, {interval.high * 100:{form}}]"


def _megabytes(count: int) -> str:
    return f"{count / 1e6:.2f}"


def _milliseconds(seconds: float) -> str:
    return f"{seconds * 1000:.1f}"


def _top1(result: Result) -> str:
    return _interval(result.score.top1)


def _paired(show: Callable[[Paired], str]) -> Callable[[Result], str]:
    return lambda result: show(result.paired) if result.paired else "reference"


def _difference(paired: Paired) -> str:
    return _interval(paired.difference, "+.2f")


def _discordant(paired: Paired) -> str:
    return f"{paired.only_reference_right} / {paired.only_variant_right}"


def _p_value(paired: Paired) -> str:
    return f"{paired.mcnemar_p:.3g}"


def _agreement(paired: Paired) -> str:
    return _interval(paired.agreement)


def _sqnr(paired: Paired) -> str:
    return "equal" if paired.logit_sqnr_db is None else f"{paired.logit_sqnr_db:.1f}"


def _clean(show: Callable[[Result], str]) -> Callable[[VariantReport], str]:
    return lambda variant: show(variant.results[CLEAN])


ANSWERS: tuple[tuple[str, Callable[[VariantReport], str]], ...] = (
    ("top-1, %", _clean(_top1)),
    ("difference, points", _clean(_paired(_difference))),
    ("only the reference right / only this", _clean(_paired(_discordant))),
    ("McNemar's p", _clean(_paired(_p_value))),
    ("same class as the reference, %", _clean(_paired(_agreement))),
    ("logit SQNR, dB", _clean(_paired(_sqnr))),
    ("negative log-likelihood", _clean(lambda result: f"{result.score.negative_log_likelihood:.4f}")),
    ("expected calibration error, %", _clean(lambda result: _percent(result.score.expected_calibration_error))),
)
SIZES: tuple[tuple[str, Callable[[VariantReport], str]], ...] = (
    ("file, MB", lambda variant: _megabytes(variant.info.serialized_bytes)),
    ("parameters in memory, MB", lambda variant: _megabytes(variant.info.parameter_bytes)),
    ("buffers in memory, MB", lambda variant: _megabytes(variant.info.buffer_bytes)),
    ("load, s", lambda variant: f"{median(variant.load_seconds):.2f}"),
)
BATCHES: tuple[tuple[str, Callable[[Summary], str]], ...] = (
    (
        "ms",
        lambda s: (
            f"{_milliseconds(s.median_seconds)} [{_milliseconds(s.least_seconds)}, {_milliseconds(s.most_seconds)}]"
        ),
    ),
    ("images/s", lambda s: f"{s.images_per_second:,.0f}"),
    ("memory, MB", lambda s: _megabytes(s.memory_bytes)),
)
UNDER_CORRUPTION: tuple[tuple[str, Callable[[Result], str]], ...] = (
    ("top-1, %", _top1),
    ("difference", _paired(_difference)),
    ("only ref / only this", _paired(_discordant)),
    ("p", _paired(_p_value)),
    ("agreement", _paired(_agreement)),
    ("SQNR, dB", _paired(_sqnr)),
)

"""The tables of recipes: results, what was not run, and the usual claims beside the measurements."""

from collections.abc import Sequence
from dataclasses import dataclass

from tabulate import tabulate

from common.statistics import Interval
from models.study import texts
from models.study.found import Found
from models.study.recipes import RECIPES, REFERENCE, Recipe
from models.study.speed import Speed

NO_KERNEL = "no kernel"


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> str:
    """Return a Markdown table, all but the first `left` columns aligned to the right."""
    align = ["left"] * left + ["right"] * (len(header) - left)
    return tabulate(rows, header, tablefmt="pipe", colalign=align, disable_numparse=True)


def speed_of(found: Found, row: Recipe) -> Speed | None:
    """Return the speed of the graph that runs the recipe. Static INT8 recipes share one: only their numbers differ."""
    return found.speeds.get(row.name) or found.speeds.get(row.runs_as)


def milliseconds(found: Found, row: Recipe, size: int) -> float:
    """Return the median latency of a batch, 0 if the recipe does not run."""
    speed = speed_of(found, row)
    return speed.milliseconds[size][1] if speed and size in speed.milliseconds else 0.0


def interval(value: Interval, form: str = "+.2f") -> str:
    """Return a share and its interval in percent."""
    if value.low is None or value.high is None:
        return f"{100 * value.estimate:{form}}"
    return f"{100 * value.estimate:{form}} [{100 * value.low:{form}}, {100 * value.high:{form}}]"


def recipes_table(found: Found) -> str:
    """Return the tables of all recipes with results, one for each family, with notes below."""
    header = (
        "recipe", "bits W/A", "top-1, %", "difference", "p", "SQNR, dB", "MB", "ms at 1 / 32 / 256", "resident MB",
        "made in",
    )  # fmt: skip
    whole = found.outcomes[REFERENCE].file_bytes if REFERENCE in found.outcomes else 0
    parts = ["## Recipes", texts.RECIPES]
    for family in dict.fromkeys(row.family for row in RECIPES.values()):
        rows = [row for row in RECIPES.values() if row.family == family and row.name in found.outcomes]
        if rows:
            title, table = (
                f"### {family[0].upper()}{family[1:]}",
                markdown(header, [_cells(found, row, whole) for row in rows]),
            )
            parts += [title, table, *filter(None, [_notes(found, rows)])]
    return "\n\n".join(parts)


def _notes(found: Found, rows: Sequence[Recipe]) -> str:
    """Return what the results say in words, and why a graph was not timed."""
    lines = []
    for row in rows:
        speed = speed_of(found, row)
        said = (found.outcomes[row.name].note, speed.reason if speed else "")
        lines += [f"- `{row.name}`: {'; '.join(filter(None, said))}"] if any(said) else []
    return "\n".join(lines)


def _cells(found: Found, row: Recipe, whole: int) -> list[str]:
    one, speed = found.outcomes[row.name], speed_of(found, row)
    paired = one.paired
    size = f"{one.file_bytes / 1e6:.2f}" + (f" ({one.file_bytes / whole:.0%})" if whole else "")
    if speed and speed.milliseconds:
        times = " / ".join(f"{float(f'{middle:.3g}'):g}" for _, middle, _ in speed.milliseconds.values())
        memory = f"{speed.resident_bytes / 1e6:.0f}"
    else:
        times, memory = unmeasured(row, speed), ""
    return [
        row.name,
        f"{row.weight_bits}/{row.activation_bits}",
        f"{100 * one.score.top1.estimate:.2f}",
        interval(paired.difference) if paired else "reference",
        f"{paired.mcnemar_p:.2g}" if paired else "",
        f"{paired.logit_sqnr_db:.1f}" if paired and paired.logit_sqnr_db is not None else "",
        size,
        times,
        memory,
        duration(one.build_seconds) if one.build_seconds else "",
    ]


def unmeasured(row: Recipe, speed: Speed | None) -> str:
    """Return why a recipe has no latency."""
    return NO_KERNEL if not row.runs_as else "not on this CPU" if speed else "not measured"


def duration(seconds: float) -> str:
    """Return a time for people."""
    return f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} min"


def missing(found: Found) -> str:
    """Return what was not run, with the reason."""
    lines = []
    for row in RECIPES.values():
        if row.name in found.outcomes:
            continue
        if row.needs_gpu:
            reason = "needs a GPU, and there was none; [whole FP16 on a GPU](results/nvidia-h200.md) was measured alone"
        else:
            reason = f"not trained yet: `python -m models.study.qat {row.name}`" if row.is_trained else "not run"
        lines.append(f"- `{row.name}`: {reason}")
    return "### Not run\n\n" + "\n".join(lines) if lines else ""


@dataclass(frozen=True)
class Claim:
    """A usual claim, and the recipe that it is about."""

    recipe: str
    smaller: str
    faster: str
    loss: str


CLAIMS = (
    Claim("fp16", "50 %", "1.5 to 2 x", "none"),
    Claim("int8-least-squares", "75 %", "2 to 4 x", "1 to 5 %"),
    Claim("w4a8-nearest", "87.5 %", "3 to 6 x", "3 to 10 %"),
    Claim("w4a8-adaround", "87.5 %", "3 to 6 x", "3 to 10 %"),
    Claim("w4a4-distilled", "87.5 %", "3 to 6 x", "3 to 10 %"),
)


def claims(found: Found) -> str:
    """Return the usual claims beside the measurements."""
    header = ("recipe", "smaller: claim", "here", "faster: claim", "here, 1 image", "loss: claim", "here, points")
    rows = []
    for claim in CLAIMS:
        one, reference = found.outcomes.get(claim.recipe), found.outcomes.get(REFERENCE)
        if not one or not reference or not one.paired:
            continue
        row = RECIPES[claim.recipe]
        ours, theirs = (milliseconds(found, x, 1) for x in (row, RECIPES[REFERENCE]))
        speed = f"{theirs / ours:.2f} x" if ours and theirs else unmeasured(row, speed_of(found, row))
        smaller = f"{100 * (1 - one.file_bytes / reference.file_bytes):.1f} %"
        rows.append(
            [claim.recipe, claim.smaller, smaller, claim.faster, speed, claim.loss, interval(one.paired.difference)]
        )
    return f"## The usual claims\n\n{markdown(header, rows)}\n\n{texts.CLAIMS}" if rows else ""

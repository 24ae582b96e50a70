"""The tables of recipes: results, what was not run, and the usual claims beside the measurements."""

from collections.abc import Sequence
from dataclasses import dataclass

from tabulate import tabulate

from common.statistics import Interval
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
    """Return the table of all recipes with results, in the order of the table of recipes."""
    header = (
        "recipe", "bits W/A", "top-1, %", "difference", "p", "SQNR, dB", "MB", "ms at 1", "at 32", "at 256",
        "resident MB", "made in",
    )  # fmt: skip
    whole = found.outcomes[REFERENCE].file_bytes if REFERENCE in found.outcomes else 0
    parts = []
    for family in dict.fromkeys(row.family for row in RECIPES.values()):
        rows = [row for row in RECIPES.values() if row.family == family and row.name in found.outcomes]
        if rows:
            cells = [_cells(found, row, whole) for row in rows]
            notes = [f"- `{row.name}`: {note}" for row in rows if (note := found.outcomes[row.name].note)]
            parts.append(
                "\n".join([f"### {family[0].upper()}{family[1:]}\n", markdown(header, cells), "", *notes]).strip()
            )
    return "## Recipes\n\n" + "\n\n".join(parts)


def _cells(found: Found, row: Recipe, whole: int) -> list[str]:
    one, speed = found.outcomes[row.name], speed_of(found, row)
    paired = one.paired
    size = f"{one.file_bytes / 1e6:.2f}" + (f" ({one.file_bytes / whole:.0%})" if whole else "")
    if speed and speed.milliseconds:
        times = [f"{speed.milliseconds[size][1]:.1f}" if size in speed.milliseconds else "" for size in (1, 32, 256)]
        times.append(f"{speed.resident_bytes / 1e6:.0f}")
    else:
        times = [NO_KERNEL if not row.runs_as else "not on this CPU" if speed else "not measured", "", "", ""]
    return [
        row.name,
        f"{row.weight_bits}/{row.activation_bits}",
        interval(one.score.top1, ".2f"),
        interval(paired.difference) if paired else "reference",
        f"{paired.mcnemar_p:.2g}" if paired else "",
        f"{paired.logit_sqnr_db:.1f}" if paired and paired.logit_sqnr_db is not None else "",
        size,
        *times,
        duration(one.build_seconds),
    ]


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
            reason = "needs a GPU; `make gpu-check` measures whole FP16 there"
        else:
            reason = f"not run; `python -m models.study.qat {row.name}` trains it" if row.is_trained else "not run"
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
        speed = f"{theirs / ours:.2f} x" if ours and theirs else NO_KERNEL if not row.runs_as else "not on this CPU"
        smaller = f"{100 * (1 - one.file_bytes / reference.file_bytes):.1f} %"
        rows.append(
            [claim.recipe, claim.smaller, smaller, claim.faster, speed, claim.loss, interval(one.paired.difference)]
        )
    return "## The usual claims\n\n" + markdown(header, rows) if rows else ""

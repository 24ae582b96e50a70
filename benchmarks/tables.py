"""The results of benchmarks.engines as Markdown. A run is the JSON that its `main` writes."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from benchmarks.rows import FLOOR, OURS, ROWS

MachineRun = dict[str, Any]
REFERENCE = "eager fp32"
OUR_NAMES = {row.dtype: row.name for row in ROWS.values() if row.family == OURS}
FLOOR_NAMES = {row.dtype: row.name for row in ROWS.values() if row.family == FLOOR}
TORCH_FP32 = tuple(row.name for row in ROWS.values() if (row.dtype, row.family) == ("float32", "torch"))
BARS = (
    # dtype of our row, rows to compare with, batch sizes, thread counts, least ratio of speeds
    ("int8", ("eager fp32",), (1,), (1,), 5.0),
    ("int8", ("eager fp32",), (32,), (1,), 4.5),
    ("int8", ("ONNX Runtime int8",), (1, 8, 32), (1, 2), 1.0),
    ("int8", ("OpenVINO int8",), (1, 8, 32), (1, 2), 0.95),
    ("float32", TORCH_FP32, (1, 8, 32), (1, 2), 1.0),
    ("float32", ("ONNX Runtime fp32", "OpenVINO fp32"), (1, 8, 32), (1, 2), 0.9),
)  # fmt: skip
"""The project's goals for its own rows in FP32 and INT8."""


def rounds(run: MachineRun, name: str, size: str) -> np.ndarray | None:
    """Return the median seconds of every round of a row, None if it has none."""
    if turns := run["rows"].get(name, {}).get("seconds", {}).get(size):
        medians: np.ndarray = np.median(np.array(turns), axis=1)
        return medians
    return None


def times_as_fast(run: MachineRun, name: str, other: str, size: str) -> float | None:
    """Return how many times as fast as `other` a row is: the median over rounds of the ratio within a round."""
    ours, theirs = rounds(run, name, size), rounds(run, other, size)
    return None if ours is None or theirs is None else float(np.median(theirs / ours))


def floor_share(run: MachineRun, name: str, size: str) -> float | None:
    """Return the share of the floor's best rate in any round that a row reaches; 1 is the floor itself.

    It is None for a row in half precision, which has no floor.
    """
    ours = rounds(run, name, size)
    floor = run["rows"].get(FLOOR_NAMES.get(ROWS[name].dtype), {}).get("seconds", {})
    if ours is None or not floor:
        return None
    best: float = min(seconds / int(known) for known, turns in floor.items() for turn in turns for seconds in turn)
    return best * int(size) / float(np.median(ours))


def best_peer(run: MachineRun, dtype: str, size: str, among: Sequence[str] | None = None) -> str | None:
    """Return the fastest row of that dtype that is not this project's, among `among` if given."""
    names = among or [row.name for row in ROWS.values() if row.dtype == dtype and row.family not in {OURS, FLOOR}]
    medians = {name: float(np.median(found)) for name in names if (found := rounds(run, name, size)) is not None}
    return min(medians, key=lambda name: medians[name], default=None)


def sizes(run: MachineRun) -> list[str]:
    """Return the batch sizes of a run, ascending."""
    return sorted({size for found in run["rows"].values() for size in found.get("seconds", {})}, key=int)


def _table(run: MachineRun, title: str, cell: Callable[[str, str], str], *, floors: bool) -> str:
    header = sizes(run)
    lines = [f"| {title} | " + " | ".join(f"batch {size}" for size in header) + " |", "|---" * (len(header) + 1) + "|"]
    for name, found in run["rows"].items():
        if "reason" not in found and (floors or ROWS[name].family != FLOOR):
            label = f"**{name}**" if ROWS[name].family == OURS else name
            lines.append(f"| {label} | " + " | ".join(cell(name, size) for size in header) + " |")
    return "\n".join(lines)


def timings(run: MachineRun) -> str:
    """Return milliseconds per batch: median over rounds, and quartiles; for a floor the best of all."""

    def cell(name: str, size: str) -> str:
        if (found := rounds(run, name, size)) is None:
            return ""
        if ROWS[name].family == FLOOR:
            return f"{_floor_ms(run, name, size):.2f}"
        low, middle, high = np.percentile(found * 1e3, (25, 50, 75))
        return f"{middle:.2f} ({low:.2f}-{high:.2f})"

    return _table(run, f"{run['threads']} thread(s), ms", cell, floors=True)


def _floor_ms(run: MachineRun, name: str, size: str) -> float:
    turns = run["rows"][name]["seconds"]
    best: float = min(s / int(known) for known, found in turns.items() for turn in found for s in turn)
    return 1e3 * int(size) * best


def ratios(run: MachineRun) -> str:
    """Return how many times as fast a row is as eager fp32 / as the best peer of its dtype / as its floor."""

    def cell(name: str, size: str) -> str:
        peer = best_peer(run, ROWS[name].dtype, size)
        values = (
            times_as_fast(run, name, REFERENCE, size),
            times_as_fast(run, name, peer, size) if peer else None,
            floor_share(run, name, size),
        )
        return " / ".join("-" if value is None else f"{value:.2f}" for value in values)

    title = f"{run['threads']} thread(s), x eager / x best peer / of the floor"
    return _table(run, title, cell, floors=False)


def bars(runs: Sequence[MachineRun]) -> str:
    """Return a row per bar: the median of the ratios within a round, the lower quartile, and the verdict."""
    lines = ["| bar | threads | batch | least | measured (lower quartile) | |", "|---|---|---|---|---|---|"]
    for dtype, against, batches, threads, least in BARS:
        for run in runs:
            for size in map(str, batches):
                if run["threads"] in threads:
                    against_what, measured, verdict = _bar(run, OUR_NAMES[dtype], against, size, least)
                    bar = f"{OUR_NAMES[dtype]}, x {against_what}"
                    lines.append(f"| {bar} | {run['threads']} | {size} | {least:g} | {measured} | {verdict} |")
    return "\n".join(lines)


def _bar(run: MachineRun, name: str, against: Sequence[str], size: str, least: float) -> tuple[str, str, str]:
    """Return the fastest of `against`, the ratio, and the verdict; a row that did not run may be the fastest."""
    if gone := [row for row in (name, *against) if rounds(run, row, size) is None]:
        return " or ".join(against), "-", f"**not judged**: {', '.join(gone)} did not run"
    other = best_peer(run, ROWS[name].dtype, size, against)
    ours, theirs = rounds(run, name, size), rounds(run, other or "", size)
    low, ratio = np.percentile(theirs / ours, (25, 50))  # type: ignore[operator]
    verdict = "**falls short**" if ratio < least else "holds" if low >= least else "holds, within the noise"
    return other or "", f"{ratio:.2f} ({low:.2f})", verdict


def answers(run: MachineRun) -> str:
    """Return the quality of each row's answers, and its memory."""
    first = sizes(run)[0]
    lines = [
        f"| row | logit SQNR, dB | top-1 agreement with fp32 | resident MB at batch {first} | at {sizes(run)[-1]} |",
        "|---|---|---|---|---|",
    ]
    for name, found in run["rows"].items():
        if ROWS[name].family != FLOOR and "sqnr" in found:
            memory = " | ".join(f"{found['resident'][size] / 1e6:.0f}" for size in (first, sizes(run)[-1]))
            noise = "equal" if found["sqnr"] is None else f"{found['sqnr']:.1f}"
            lines.append(f"| {name} | {noise} | {found['agreement']:.1%} | {memory} |")
    return "\n".join(lines)


def missing(runs: Sequence[MachineRun]) -> str:
    """Return the rows that failed, with the reasons."""
    lines = [
        f"- {name}, {run['threads']} thread(s): {found['reason']}"
        for run in runs
        for name, found in run["rows"].items()
        if "reason" in found
    ]
    return "\n".join(["Not run:", "", *lines]) if lines else "Every row ran."


def joined(machines: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return one description of all runs; values that differ are joined: `2026-11-23 / 2026-11-24`."""
    keys = dict.fromkeys(key for machine in machines for key in machine)
    return {key: " / ".join(dict.fromkeys(str(m[key]) for m in machines if key in m)) for key in keys}


def document(runs: Sequence[MachineRun]) -> str:
    """Return the whole result of one CPU."""
    machine = joined([machine for run in runs for machine in run["machines"]])
    about = ", ".join(f"{key} {value}" for key, value in machine.items() if key not in {"cpu", "warm_up"})
    count = {size: (len(v), len(v[0])) for size, v in runs[0]["rows"][REFERENCE].get("seconds", {}).items()}
    turns = "; ".join(f"batch {size}: {number} rounds of {calls} calls" for size, (number, calls) in count.items())
    parts = [
        f"# Engines on {machine['cpu']}",
        f"Written by `python -m benchmarks.engines`. {about}.",
        (
            "Every row takes `[N, 3, 32, 32] uint8` pixels, normalises them and gives float32 logits of the bundled "
            "checkpoint. The peers are calibrated on the 300 bundled images. Each row is a process of its own; all are "
            "up at once and take turns in random order. The cells of a column are from one run; columns may be from "
            f"several. {machine['warm_up']} untimed calls follow each change of batch size, and one precedes each "
            f"turn; {turns}. A cell is the median over rounds of a round's median call, with quartiles over rounds; a "
            "ratio is the median of the ratios within a round. The floor is the network's 0.56 GMACs per image at the "
            "best rate that large matrix products and convolutions reached through oneDNN in the same run."
        ),
    ]
    for run in runs:
        parts += [f"## {run['threads']} thread(s)", timings(run), ratios(run), answers(run)]
    return "\n\n".join([*parts, "## Bars", bars(runs), missing(runs)]) + "\n"

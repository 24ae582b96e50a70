"""The comparison of each arm with its baseline, and its result in words."""

from collections.abc import Sequence

import numpy as np

from loadtest.analysis.energy import energy_ratio
from loadtest.analysis.statistics import mean_ratio, quantile_ratio
from loadtest.analysis.words import accuracy_words, points, ratio_words
from loadtest.plan import UNKNOWN, Arm
from loadtest.report.cells import QUANTILES, Cell
from loadtest.report.document import Against, Comparison, Ratios, Report, Verdict

METRICS = ("images_per_second", *QUANTILES)
SIGNIFICANT = 0.05


def baselines(arms: Sequence[Arm]) -> dict[str, str]:
    """Return the arm that each arm is compared with; an arm that is its own baseline has none.

    The first of these that is there is the baseline:

    1. for an arm of the second or a later service: the same variant of the first service, since two builds are compared
    2. for an arm of a later service, if it or the first service is asked over the Open Inference Protocol: the model or
       variant at the same place of the first service, since two servers may name their models differently
    3. for an arm of a later service: the same variant of another service
    4. the variant of the same service that the service names as the arm's `reference`
    5. the first variant of the same service that has no `reference`, which makes it a reference itself
    6. the first arm
    """
    chosen = {arm: _baseline(arm, arms) for arm in arms}
    return {arm.name: baseline.name for arm, baseline in chosen.items() if baseline != arm}


def _baseline(arm: Arm, arms: Sequence[Arm]) -> Arm:
    same = [other for other in arms if _service(other) == _service(arm)]
    twins = [other for other in arms if other.variant == arm.variant and _service(other) != _service(arm)]
    first = [other for other in arms if _service(other) == _service(arms[0])]
    peers = [other for other in first if other.variant == arm.variant]
    places = [] if arm.is_told and arms[0].is_told else first[same.index(arm) :] or first
    named = [other for other in same if other.variant == arm.info.reference]
    references = [other for other in same if other.info.reference is None]
    later_service = _service(arm) != _service(arms[0])
    candidates: list[Arm] = [*((*peers, *places, *twins) if later_service else ()), *named, *references, arms[0]]
    return candidates[0]


def _service(arm: Arm) -> tuple[str, str]:
    return arm.url, arm.service


def compare(arm: Cell, baseline: Cell, seed: int) -> Comparison:
    """Return the ratios between two cells of the same workload, over the rounds that both played (paired by block)."""
    blocks = sorted({r.block for r in arm.rounds} & {r.block for r in baseline.rounds})
    ours, theirs = ([{r.block: r for r in cell.rounds}[block] for block in blocks] for cell in (arm, baseline))
    throughputs = [np.array([r.answered / r.seconds for r in rounds]) for rounds in (ours, theirs)]
    latencies = [[np.array(r.latencies) for r in rounds] for rounds in (ours, theirs)]
    return Comparison(
        arm=arm.arm,
        baseline=baseline.arm,
        workload=arm.workload,
        rounds=len(blocks),
        ratios=Ratios(
            images_per_second=mean_ratio(throughputs[0], throughputs[1], seed=seed),
            **{name: quantile_ratio(latencies[0], latencies[1], q, seed=seed) for name, q in QUANTILES.items()},
            energy=energy_ratio(ours, theirs, seed),
        ),
    )


def accuracy_verdict(held: Against) -> str:
    """Return the difference in accuracy in words, paired on the images that both arms answered."""
    if held.difference is None:
        return "accuracy: not judged" if held.images else "accuracy: no image was answered by both"
    numbers = f"{points(held.difference)}, paired on {held.images:,} images"
    return accuracy_words(held.difference, numbers, shown=held.mcnemar_p < SIGNIFICANT)


def verdicts(report: Report) -> list[Verdict]:
    """Return the results in words: the service level, then each comparison under load, then accuracy.

    A comparison with an INVALID cell has no result, nor has accuracy without a valid cell. Searches for the service
    level judge themselves. An INVALID run has no results at all.
    """
    if report.invalid:
        return []
    found = [level.sentence() for level in report.levels] + [ratio.sentence() for ratio in report.level_ratios]
    level = [Verdict(report.levels[0].slo, tuple(found))] if found else []
    speed = [
        Verdict(f"{_pair(c.arm, c.baseline, report)}, {c.workload}", _speed(c, report))
        for c in report.comparisons
        if not any(cell.invalid for cell in report.sides(c))
    ]
    accuracy = [
        Verdict(_pair(row.arm, row.against.baseline, report), (accuracy_verdict(row.against),))
        for row in report.accuracy
        if row.against and not report.is_void
    ]
    return [*level, *speed, *accuracy]


def _speed(comparison: Comparison, report: Report) -> tuple[str, ...]:
    """Return the words about one comparison. An arm that cannot hold an open workload has no latencies to compare."""
    cells = report.sides(comparison)
    if not any(cell.saturated for cell in cells):
        return tuple(ratio_words(metric, getattr(comparison.ratios, metric)) for metric in METRICS)
    return tuple(
        f"{cell.arm} cannot hold this rate, it answered {cell.requests_per_second:.1f} requests/s"
        if cell.saturated
        else f"{cell.arm} holds this rate"
        for cell in cells
    )


def _pair(arm: str, baseline: str, report: Report) -> str:
    own, other = report.devices[arm], report.devices[baseline]
    is_same = own == other or UNKNOWN in (own, other)
    return f"{arm} against {baseline}" + ("" if is_same else f" ({own} against {other})")

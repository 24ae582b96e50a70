"""The report of a run: its numbers, their statistics, and the verdicts."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime

from loadtest.analysis.accuracy import accuracies
from loadtest.analysis.decisions import decisions
from loadtest.analysis.energy import energy_use, prices
from loadtest.analysis.stability import SMALL, Drift, drifts
from loadtest.analysis.summary import summarise
from loadtest.analysis.validity import invalid, notes
from loadtest.analysis.verdicts import baselines, compare, verdicts
from loadtest.client.images import UNLABELLED, LabelledImages
from loadtest.client.machine import fingerprint
from loadtest.energy import is_local
from loadtest.measured import Measured
from loadtest.options import Options
from loadtest.records import rounds_of
from loadtest.report.cells import Cell
from loadtest.report.document import Comparison, Images, Report, ReportedArm, Server
from loadtest.slo.level import Level, LevelRatio, ratio
from loadtest.slo.stopped import unfinished


def build(measured: Measured, options: Options, command: Sequence[str]) -> Report:
    """Return the report of a run that `command` started."""
    found = drifts(measured.subjects.arms, options.workloads, measured.played)
    numbers = _numbers(measured, options, command, [drift for drift in found if not drift.is_small])
    words = tuple(verdicts(numbers))
    small = [
        f"{d.arm}, {d.workload}: {d.reason}. It is less than {100 * SMALL:.0f} %, so the cell stays valid."
        for d in found
        if d.is_small
    ]
    return replace(
        numbers,
        notes=(*notes(numbers), *small),
        verdicts=words,
        decisions=tuple(decisions(numbers)),
        summary=tuple(verdict.sentence for verdict in words),
    )


def _numbers(measured: Measured, options: Options, command: Sequence[str], unstable: Sequence[Drift]) -> Report:
    """Return the report without what is concluded from it."""
    subjects = measured.subjects
    held_against = baselines(subjects.arms)
    cells = judged(summaries(measured, options), unstable, options.error_limit)
    names = [arm.name for arm in subjects.arms]
    levels = [*measured.levels, *unfinished(measured.searched, measured.levels, options)]
    return Report(
        created=datetime.now(UTC).isoformat(timespec="seconds"),
        command=tuple(command),
        seconds=measured.seconds,
        workers=measured.workers,
        partial=measured.partial,
        settings=options,
        client=fingerprint(),
        same_machine=all(is_local(target.url) for target in options.urls),
        servers=tuple(
            Server(service.label, service.url, said.variants, said.checkpoint, said.service, service.protocol)
            for service, said in subjects.services
        ),
        images=sent_images(measured.images, options.payload),
        arms=tuple(
            ReportedArm(arm.name, arm.variant, arm.url, arm.device, held_against.get(arm.name), arm.asked)
            for arm in subjects.arms
        ),
        excluded=subjects.excluded,
        cells=tuple(cells),
        accuracy=tuple(accuracies(subjects.arms, held_against, measured.images, measured.bodies, measured.played)),
        comparisons=tuple(comparisons(cells, held_against, options.seed)),
        invalid=measured.problems,
        levels=tuple(sorted(levels, key=lambda level: names.index(level.arm))),
        level_ratios=tuple(level_ratios(measured.levels, held_against)),
        energy=measured.metering,
        prices=tuple(prices(cells, options.price_per_hour, options.images_per_request)),
    )


def sent_images(images: LabelledImages, payload: str) -> Images:
    """Return the description of the images that were sent."""
    unlabelled = int((images.labels == UNLABELLED).sum())
    return Images(len(images), images.sha256, images.classes, unlabelled, images.formats(payload))


def summaries(measured: Measured, options: Options) -> list[Cell]:
    """Return the cells that were played, workload by workload."""
    began = min((one.stretch.opened for one in measured.played), default=0.0)
    cells = [
        summarise(arm, workload, played, options.images_per_request, options.timeout, began)
        for workload in options.workloads
        for arm in measured.subjects.arms
        if (played := rounds_of(measured.played, arm, workload))
    ]
    return [replace(cell, energy=energy_use(cell.rounds, measured.metering.idle_watts)) for cell in cells]


def judged(cells: Sequence[Cell], unstable: Sequence[Drift], error_limit: float) -> list[Cell]:
    """Return the cells with the reasons that make them INVALID."""
    reasons = {(drift.arm, drift.workload): (drift.reason,) for drift in unstable}
    return [
        replace(cell, invalid=(*invalid(cell, error_limit), *reasons.get((cell.arm, cell.workload), ())))
        for cell in cells
    ]


def comparisons(cells: Sequence[Cell], held_against: Mapping[str, str], seed: int) -> list[Comparison]:
    """Compare every cell with the cell of its baseline under the same workload."""
    by_key = {(c.arm, c.workload): c for c in cells}
    pairs = [(c, by_key.get((held_against.get(c.arm, ""), c.workload))) for c in cells]
    return [compare(c, other, seed) for c, other in pairs if other]


def level_ratios(levels: Sequence[Level], held_against: Mapping[str, str]) -> list[LevelRatio]:
    """Compare the limit of every arm with that of its baseline."""
    by_arm = {level.arm: level for level in levels}
    pairs = [(level, by_arm.get(held_against.get(level.arm, ""))) for level in levels]
    return [found for level, other in pairs if other and (found := ratio(level, other))]

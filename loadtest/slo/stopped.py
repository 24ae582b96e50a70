"""The searches for a service level that ended early, and what their runs show."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from loadtest.options import Options
from loadtest.records import Played
from loadtest.slo.fit import limit
from loadtest.slo.level import Found, Level, Slo, Trial


@dataclass(frozen=True)
class Searched:
    """One run of a search."""

    capacity: float
    """Requests per second that the arm answers at most, measured before the search."""
    trial: Trial
    played: Played


def unfinished(runs: Sequence[Searched], finished: Iterable[Level], options: Options) -> list[Level]:
    """Return the results of the searches that have runs and are not among the finished ones."""
    done = {level.arm for level in finished}
    arms = dict.fromkeys(run.played.arm.name for run in runs if run.played.arm.name not in done)
    if options.slo is None:
        return []
    return [_level(arm, [run for run in runs if run.played.arm.name == arm], options.slo, options) for arm in arms]


def _level(arm: str, runs: Sequence[Searched], slo: Slo, options: Options) -> Level:
    return Level(arm, str(slo), options.slo_unit, runs[-1].capacity, stopped([run.trial for run in runs], slo))


def stopped(tried: Sequence[Trial], slo: Slo) -> Found:
    """Return the result of a search that ended early. It states no load: a few runs prove none."""
    sound = [trial for trial in tried if not trial.limited]
    held = [trial.load for trial in sound if trial.held]
    found = limit(sound, slo, max(held)) if held else None
    return Found(
        None, found.interval if found else None, f"the search was stopped after {len(tried)} runs", tuple(tried)
    )

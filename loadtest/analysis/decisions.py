"""The advice for each workload: the arm to run, and why, or that the numbers do not decide."""

import math
from collections.abc import Collection, Sequence

from common.statistics import Interval
from loadtest.analysis.candidates import IMAGES, Candidate, accuracy_clause, accuracy_sign, against, candidate
from loadtest.analysis.energy import HOUR, MILLION
from loadtest.analysis.verdicts import compare
from loadtest.analysis.words import milliseconds, significant, times
from loadtest.report.document import Comparison, Decision, Report
from loadtest.slo.level import LevelRatio

Choice = tuple[tuple[str, ...], str]
"""The arms to run, and the words about them."""


def decisions(report: Report) -> list[Decision]:
    """Return a decision for each arm that holds a service level, then for each workload.

    A workload has a decision for each baseline that its arms are compared with.
    """
    if report.invalid:
        return [Decision("the whole run", (), f"no decision, it is INVALID ({report.invalid[0]})")]
    groups = grouped(report)
    several = len({baseline for _, baseline in groups}) > 1
    return [of_level(ratio, report) for ratio in report.level_ratios] + [
        Decision(workload + (f", against {baseline}" if several else ""), *decide(group, report))
        for (workload, baseline), group in groups.items()
    ]


def of_level(found: LevelRatio, report: Report) -> Decision:
    """Return the decision about one arm and its baseline under a service level."""
    own, other = (next(s.found.load or 0.0 for s in report.levels if s.arm == a) for a in (found.arm, found.baseline))
    numbers = f"{times(found.ratio)} the {found.unit} of {found.baseline} ({own:g} against {other:g})"
    held = against(found.arm, report)
    sign, clause = accuracy_sign(held), accuracy_clause(held)
    is_more, is_less = (found.ratio.low or 0.0) > 1, (found.ratio.high or math.inf) < 1
    if is_more and sign < 0:
        return Decision(found.slo, (), f"no clear choice: {found.arm} holds {numbers}, but is {clause}")
    if not is_more and (is_less or sign <= 0):
        return Decision(found.slo, (found.baseline,), f"no gain of {found.arm} shown, {numbers}")
    return Decision(found.slo, (found.arm,), f"{numbers}, {clause}")


def grouped(report: Report) -> dict[tuple[str, str], list[Comparison]]:
    """Return the comparisons by workload and baseline, in the order of the run."""
    found: dict[tuple[str, str], list[Comparison]] = {}
    for comparison in report.comparisons:
        found.setdefault((comparison.workload, comparison.baseline), []).append(comparison)
    return found


def decide(group: Sequence[Comparison], report: Report) -> Choice:
    """Return the arms to run among a baseline and the arms that are compared with it, and why."""
    baseline = group[0].baseline
    broken = {cell.arm: cell.invalid[0] for one in group for cell in report.sides(one) if cell.invalid}
    if baseline in broken:
        return (), f"no decision, {out([baseline])} ({broken[baseline]})"
    candidates = [candidate(one, report) for one in group if one.arm not in broken]
    if not candidates:
        return (), f"no decision, {out(broken)} ({next(iter(broken.values()))})"
    choice, words = chosen(candidates, report)
    return choice, "; ".join([words, *([f"{out(broken)} and not considered"] if broken else [])])


def out(arms: Collection[str]) -> str:
    """Return that these arms are INVALID."""
    return f"{' and '.join(arms)} {'is' if len(arms) == 1 else 'are'} INVALID here"


def chosen(candidates: Sequence[Candidate], report: Report) -> Choice:
    """Return the choice among candidates whose cells are valid.

    The first rule that applies decides: take the fastest arm that loses nothing; leave it to the reader where an arm
    costs accuracy, or is better in one number and worse in another; keep the baseline.
    """
    baseline = candidates[0].baseline.arm
    good = [c for c in candidates if is_better(c)]
    if good:
        return best_of(good, candidates, report)
    open_ones = [c for c in candidates if (c.is_faster and c.accuracy < 0) or c.is_mixed]
    if open_ones:
        return (), f"no clear choice: {'; '.join(weighed(c) for c in open_ones)}"
    if limited := [c.arm for c in candidates if c.cell.server.front_is_limit]:
        claims = "; ".join(unattractive(c) for c in candidates)
        return (), f"no decision, the service's HTTP process was the limit of {' and '.join(limited)} ({claims})"
    if not any(c.is_known for c in candidates):
        return (), f"no decision, too few rounds or requests ({'; '.join(c.claims for c in candidates)})"
    return (baseline,), "; ".join(unattractive(c) for c in candidates)


def is_better(one: Candidate) -> bool:
    """Return whether a candidate is faster or more accurate than its baseline, and in nothing worse."""
    if one.accuracy > 0:
        return not (one.is_slower or one.is_mixed)
    return one.is_faster and one.accuracy == 0


def best_of(good: Sequence[Candidate], candidates: Sequence[Candidate], report: Report) -> Choice:
    """Return the fastest of the good candidates, those that are not shown to be slower, and the reasons."""
    ranked = sorted(good, key=strength, reverse=True)
    best, others = ranked[0], ranked[1:]
    ties = [other for other in others if not separated(best, other, report)]
    words = [f"{reason(best)}, {best.accuracy_words}", *costs(best, report)]
    if ties:
        words.append(f"{' and '.join(c.arm for c in (best, *ties))} are not shown to differ")
    words += [c.claims for c in others if c not in ties]
    words += [weighed(c) for c in candidates if c not in good and c.is_faster and strength(c) > strength(best)]
    return tuple(c.arm for c in (best, *ties)), "; ".join(words)


def strength(one: Candidate) -> float:
    """Return a number by which candidates are ranked: the gain; an arm that alone holds a rate comes first."""
    if one.baseline.saturated and not one.cell.saturated:
        return math.inf
    return one.speeds[0].ratio.estimate if one.speeds else 0.0


def separated(best: Candidate, other: Candidate, report: Report) -> bool:
    """Return whether the best candidate is shown to be faster than another one under their workload."""
    if other.cell.saturated != best.cell.saturated:
        return True
    ratios = compare(best.cell, other.cell, report.settings.seed).ratios
    metric = best.speeds[0].metric if best.speeds else "p50"
    ratio: Interval | None = getattr(ratios, metric)
    return ratio is not None and ratio.excludes(1.0)


def reason(one: Candidate) -> str:
    """Return what a chosen candidate gains on its baseline; for a latency with both values."""
    gain = one.leading
    if one.overload or gain is None:
        return one.overload or one.claims
    if gain.metric == IMAGES:
        return f"{gain.words} of {one.baseline.arm}"
    own, other = (milliseconds(cell.latency.named(gain.metric) or 0.0) for cell in (one.cell, one.baseline))
    return f"{gain.words} as {one.baseline.arm} ({own} against {other} ms)"


def weighed(one: Candidate) -> str:
    """Return what a candidate gains, and what it costs."""
    costs = [loss.claim for loss in one.losses] + ([f"is {one.accuracy_words}"] if one.accuracy < 0 else [])
    return f"{one.claims}, but {' and '.join(costs)}" if not one.overload else f"{one.claims}, but {one.arm} {costs[0]}"


def unattractive(one: Candidate) -> str:
    """Return why a candidate does not replace the baseline."""
    less = f", and it is {one.accuracy_words}" if one.accuracy < 0 else ""
    if one.is_slower or one.leading is None:
        return one.claims + less
    return f"no gain of {one.arm} shown ({one.leading.words})" + less


def costs(one: Candidate, report: Report) -> list[str]:
    """Return the price and the energy of an arm next to those of its baseline, as far as they are known.

    A rate that both arms hold keeps the same machine busy for the same time, so only closed workloads have a price.
    """
    found = []
    per_hour = report.settings.price_per_hour
    if per_hour is not None and one.cell.rate is None:
        own, other = (
            significant(MILLION * per_hour / HOUR / cell.images_per_second) if cell.images_per_second else "-"
            for cell in (one.cell, one.baseline)
        )
        found.append(f"{own} against {other} a million images")
    if one.cell.energy and one.baseline.energy:
        own, other = (significant(cell.energy.joules.estimate) for cell in (one.cell, one.baseline) if cell.energy)
        found.append(f"{own} against {other} J per 1,000 images")
    return found

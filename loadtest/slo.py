"""The service level question: the highest load under which an arm still answers in time."""

import math
import re
from collections.abc import Callable, Generator, Mapping, Sequence
from typing import Any, NamedTuple

from loadtest.analysis.statistics import enough

STEPS = 6
"""Halvings of the searched range: the answer is found to a 64th of the highest load that can be answered at all."""
CONFIRMATIONS = 7
BACK = 0.9
"""What is left of a load after a longer run did not confirm it."""
PATIENCE = 3
"""Runs in a row that may fail before a step back is twice as long as the one before."""
CONFIDENCE = 1 - 0.01 / CONFIRMATIONS
"""Of one confirming run, so that all of them together are wrong once in 100 searches at most."""
Searching = Generator[None, None, dict[str, Any]]
"""A search that yields after each run and returns what it found."""
TERM = re.compile(r"p(\d{2}(?:\.\d+)?)=(\d+(?:\.\d+)?)(ms|s)")


class Slo(NamedTuple):
    """`p99=20ms`: a share `q` of the requests is answered well within `seconds`."""

    name: str
    q: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.name} <= {1000 * self.seconds:g} ms"


class Probe(NamedTuple):
    """What one run under one load showed: of `requests`, so many were `over` the time or failed."""

    requests: int
    over: int
    is_limited: bool = False
    """The load generator was too busy or late: requests may be over by its fault."""

    def holds(self, slo: Slo) -> bool:
        """Whether the share is kept in this run."""
        return self.requests > 0 and self.over <= (1 - slo.q) * self.requests

    def proves(self, slo: Slo) -> bool:
        """Whether it is kept with CONFIDENCE: a service that is just too slow shows so few over that seldom.

        The rule of MLPerf's early stopping; with none over it takes 619 requests for a p99.
        """
        return self.requests > 0 and binomial(self.over, self.requests, 1 - slo.q) <= 1 - CONFIDENCE


def parse(text: str) -> Slo:
    """`p99=20ms` or `p99.9=0.5s`.

    Raises:
        ValueError: the text is neither.
    """
    if not (match := TERM.fullmatch(text.strip())):
        raise ValueError(f"expected something like p99=20ms, got {text}")
    return Slo(f"p{match[1]}", float(match[1]) / 100, float(match[2]) / (1000 if match[3] == "ms" else 1))


def search(slo: Slo, ceiling: float, probe: Callable[[float, float], Probe], *, whole: bool = False) -> Searching:
    """The highest load up to `ceiling` that holds `slo`: by halving, then confirmed by longer runs, backing off.

    `probe(load, requests)` plays a load until about so many requests were due. `whole`: only whole loads (users).
    Yields after each run, so that several searches can take turns.
    """
    tried: list[dict[str, Any]] = []

    def run(load: float, requests: float, *, proof: bool) -> Generator[None, None, bool]:
        found = probe(load, requests)
        good = found.proves(slo) if proof else found.holds(slo)
        row = {"load": load, "requests": found.requests, "over": found.over, "confirming": proof, "held": good}
        tried.append(row | {"limited": found.is_limited})
        yield
        return good

    *_, trial, confirming = sizes(slo)
    low, high = 0.0, ceiling
    for _ in range(STEPS):
        middle = rounded((low + high) / 2, whole)
        if not low < middle < high:
            break
        low, high = (middle, high) if (yield from run(middle, trial, proof=False)) else (low, middle)
    load = low
    for failures in range(1, CONFIRMATIONS + 1):
        if load <= 0 or (yield from run(load, confirming, proof=True)):
            break
        less = rounded(load * BACK ** max(1, 2 ** (failures - PATIENCE)), whole)
        load = less if less < load else 0.0
    else:
        load = 0.0
    return {"load": load or None, "confirmed": load > 0, "bound": bound(tried), "tried": tried}


def bound(tried: Sequence[Mapping[str, Any]]) -> str:
    """Why the service may hold more than was found; empty when it was the service that did not."""
    if all(row["held"] for row in tried):
        return "no higher load was tried"
    if any(row["limited"] and not row["held"] for row in tried):
        return "the load generator was too slow for a higher one"
    return ""


def sizes(slo: Slo) -> list[float]:
    """Requests of each run of a search that is confirmed at once."""
    return [enough(slo.q) / 3] * STEPS + [3.0 * enough(slo.q)]


def rounded(load: float, whole: bool) -> float:
    """A load that can be asked for: a whole number of users, or a rate of three digits."""
    return float(math.floor(load)) if whole else float(f"{load:.3g}")


def binomial(k: int, n: int, p: float) -> float:
    """The probability of at most `k` of `n` when each has probability `p`."""
    terms = (
        math.lgamma(n + 1) - math.lgamma(i + 1) - math.lgamma(n - i + 1) + i * math.log(p) + (n - i) * math.log1p(-p)
        for i in range(min(k, n) + 1)
    )
    return min(1.0, math.fsum(math.exp(term) for term in terms))


def words(found: dict[str, Any]) -> str:
    """One sentence about one arm."""
    loads = [row["load"] for row in found["tried"] if not row["held"]]
    if found["load"] is None:
        text = f"{found['arm']} was not shown to hold {found['slo']} under any load that was tried"
        why = found["bound"] or f"the least: {min(loads):g} {found['unit']}"
        return f"{text} ({why})"
    last = next(t for t in reversed(found["tried"]) if t["confirming"])
    proof = f"{last['over']} of {last['requests']:,} requests were over, which proves it with 99 % confidence"
    up_to = f"{'at least ' if found['bound'] else ''}up to {found['load']:g} {found['unit']}"
    return f"{found['arm']} holds {found['slo']} {up_to} ({proof}), {found['bound'] or f'not shown at {min(loads):g}'}"

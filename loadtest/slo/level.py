"""A service level, and the result of the search for the highest load that keeps it."""

import re
from dataclasses import dataclass

TERM = re.compile(r"p(\d{2}(?:\.\d+)?)=(\d+(?:\.\d+)?)(ms|s)")


@dataclass(frozen=True)
class Slo:
    """A service level such as `p99=20ms`: at least the share `q` of the requests is answered within `seconds`."""

    name: str
    q: float
    seconds: float

    def __str__(self) -> str:
        return f"{self.name} <= {1000 * self.seconds:g} ms"


@dataclass(frozen=True)
class Trial:
    """One run of a search under one load."""

    load: float
    requests: int
    over: int
    """Requests that failed or took longer than the service level allows."""
    confirming: bool
    """True for a long run that must prove the level, false for a short run of the halving."""
    held: bool
    """True if this run kept the level; a confirming run keeps it only with CONFIDENCE."""
    limited: bool
    """True if the load generator was too busy or too late, so that it may have caused the slow requests."""


@dataclass(frozen=True)
class Found:
    """The result of one search."""

    load: float | None
    """The highest load that was confirmed; None if none was."""
    bound: str
    """Why the arm may hold a higher load than `load`; empty if the arm itself was the limit."""
    tried: tuple[Trial, ...]


@dataclass(frozen=True)
class Level:
    """The highest load under which one arm keeps the service level."""

    arm: str
    slo: str
    unit: str
    """Unit of the loads: `requests/s` or `users`."""
    capacity: float
    """Requests per second that the arm answers at most, measured before the search."""
    found: Found

    def sentence(self) -> str:
        """Return the result as one sentence."""
        found = self.found
        failed = [trial.load for trial in found.tried if not trial.held]
        if found.load is None:
            why = found.bound or f"the least: {min(failed):g} {self.unit}"
            return f"{self.arm} was not shown to hold {self.slo} under any load that was tried ({why})"
        last = next(trial for trial in reversed(found.tried) if trial.confirming)
        proof = f"{last.over} of {last.requests:,} requests were over, which proves it with 99 % confidence"
        up_to = f"{'at least ' if found.bound else ''}up to {found.load:g} {self.unit}"
        return f"{self.arm} holds {self.slo} {up_to} ({proof}), {found.bound or f'not shown at {min(failed):g}'}"


def parse(text: str) -> Slo:
    """Return the service level that a text such as `p99=20ms` or `p99.9=0.5s` states.

    Raises:
        ValueError: the text has another form.
    """
    if not (match := TERM.fullmatch(text.strip())):
        raise ValueError(f"expected something like p99=20ms, got {text}")
    return Slo(f"p{match[1]}", float(match[1]) / 100, float(match[2]) / (1000 if match[3] == "ms" else 1))

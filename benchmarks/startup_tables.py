"""The tables of `benchmarks.startup`: starts, memory, killed workers, and the project's goals for them."""

import statistics
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

from benchmarks.revival import CLIENTS
from benchmarks.starting import BATCHES, Memory, Phases, Start

Away = Mapping[str, Sequence[float]]
"""Server -> the seconds that INT8 was away in each round."""


@dataclass
class Measured:
    """What was measured of a server, round by round; `reason` says why it did not start."""

    cold: list[Start] = field(default_factory=list)
    warm: list[Start] = field(default_factory=list)
    memory: list[dict[str, Memory]] = field(default_factory=list)
    phases: list[dict[str, Phases]] = field(default_factory=list)
    """The phases of each worker's start with a warm cache, by variant."""
    cache: str = ""
    """How the cache of files was dropped."""
    reason: str = ""

    def total(self) -> list[Memory]:
        """Return the memory of all processes in each round."""
        return [sum(processes.values(), Memory()) for processes in self.memory]


def spread(values: Sequence[float], scale: float = 1.0, digits: int = 1) -> str:
    """Return the median and, of several values, the least and the greatest: `5.1 (4.9-5.6)`."""
    low, middle, high = (
        f"{value / scale:.{digits}f}" for value in (min(values), statistics.median(values), max(values))
    )
    return f"{middle} ({low}-{high})" if len(values) > 1 else middle


def starts(measured: Mapping[str, Measured]) -> str:
    """Return the seconds to readiness and to the first predictions, with a warm and a cold cache of files."""
    lines = [
        "| seconds from the start | ready, warm | predicted, warm | ready, cold | predicted, cold |",
        "|---|---:|---:|---:|---:|",
    ]
    for name, found in measured.items():
        if found.warm:
            runs = (found.warm, found.cold)
            cells = (spread([getattr(s, key) for s in run]) for run in runs for key in ("ready", "predicted"))
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def phases(measured: Mapping[str, Measured]) -> str:
    """Return the seconds that the start of each worker of this service takes."""
    lines = ["| seconds of a worker's start, warm | worker | load | self-test |", "|---|---|---:|---:|"]
    for name, found in measured.items():
        for variant in found.phases[0] if found.phases else ():
            of = [phases[variant] for phases in found.phases]
            lines.append(f"| {name} | {variant} | {spread([p.load for p in of])} | {spread([p.test for p in of])} |")
    return "\n".join(lines)


def memory(measured: Mapping[str, Measured]) -> str:
    """Return the memory of each process and of all."""
    lines = ["| MB | process | resident | proportional |", "|---|---|---:|---:|"]
    for name, found in measured.items():
        if found.memory:
            processes = {process: [of.get(process, Memory()) for of in found.memory] for process in found.memory[0]}
            lines += [_memory_row(name, process, of) for process, of in processes.items()]
            lines.append(_memory_row(name, "**all**", found.total()))
    return "\n".join(lines)


def _memory_row(name: str, process: str, of: Sequence[Memory]) -> str:
    cells = (spread([getattr(m, kind) for m in of], 1e6, 0) for kind in ("resident", "proportional"))
    return f"| {name} | {process} | " + " | ".join(cells) + " |"


def killed_workers(away: Away) -> str:
    """Return the seconds that INT8 was away."""
    lines = ["| INT8 answers again after its worker was killed | seconds |", "|---|---:|"]
    return "\n".join([*lines, *(f"| {name} | {spread(seconds)} |" for name, seconds in away.items())])


@dataclass(frozen=True)
class Goal:
    """The greatest value that the project wants of a server."""

    what: str
    server: str
    most: float
    unit: str
    values: Callable[[Measured], Sequence[float]]
    """Returns the value of each round."""


def resident(process: str) -> Callable[[Measured], Sequence[float]]:
    """Return a function from what was measured to the resident MB of a process in each round."""
    return lambda found: [of[process].resident / 1e6 for of in found.memory]


def proportional(found: Measured) -> Sequence[float]:
    """Return the proportional MB of all processes in each round."""
    return [of.proportional / 1e6 for of in found.total()]


def ready(found: Measured) -> Sequence[float]:
    """Return the seconds until a server is ready with a warm cache of files."""
    return [start.ready for start in found.warm]


INT8, FP32, BOTH = (f"this service, {variants}" for variants in ("int8", "fp32", "fp32+int8"))
GOALS = (
    Goal("worker of INT8, resident", INT8, 170, "MB", resident("worker int8")),
    Goal("worker of FP32, resident", FP32, 250, "MB", resident("worker fp32")),
    Goal("FP32 and INT8, all processes, proportional", BOTH, 520, "MB", proportional),
    Goal("INT8 alone, all processes, proportional", INT8, 280, "MB", proportional),
    Goal("FP32 and INT8, ready with a warm cache", BOTH, 6, "s", ready),
    Goal("INT8 alone, ready with a warm cache", INT8, 3, "s", ready),
)
MOST_SECONDS_AWAY = 6.0


def goals(measured: Mapping[str, Measured], away: Away) -> str:
    """Return each goal that was measured, with the median and the verdict."""
    rows = [
        (goal.what, goal.most, goal.unit, statistics.median(goal.values(measured[goal.server])))
        for goal in GOALS
        if goal.server in measured and measured[goal.server].memory
    ]
    if BOTH in away:
        rows.append(("INT8 answers after its worker was killed", MOST_SECONDS_AWAY, "s", statistics.median(away[BOTH])))
    lines = ["| goal | at most | measured | |", "|---|---:|---:|---|"]
    for what, most, unit, value in rows:
        digits = 0 if unit == "MB" else 1
        verdict = "holds" if value <= most else "**falls short**"
        lines.append(f"| {what} | {most:g} {unit} | {value:.{digits}f} {unit} | {verdict} |")
    return "\n".join(lines)


def document(conditions: Mapping[str, str | int], measured: Mapping[str, Measured], away: Away) -> str:
    """Return the whole result."""
    about = ", ".join(f"{key} {value}" for key, value in conditions.items())
    how = ", ".join(dict.fromkeys(found.cache for found in measured.values() if found.cache))
    missing = [f"- {name}: {found.reason}" for name, found in measured.items() if found.reason]
    parts = [
        "# Start-up and memory",
        f"Written by `python -m benchmarks.startup`. {about}.",
        (
            "The servers take turns, and each is alone while it is measured. A cell is the median of the rounds, with "
            f"the least and the greatest. With a cold cache the kernel has forgotten the files' contents ({how}); the "
            "start after that one has a warm cache. *Ready* is the first 200 of the readiness route, *predicted* the "
            "first answer of every network. This service is ready after a batch of every size and a self-test; the "
            "peers run no batch before a client sends one."
        ),
        starts(measured),
        (
            "Before a worker of this service is ready, it runs a self-test of 300 images, which is the warm-up of "
            "every batch size, too. Its seconds depend on the network's speed: a CPU with VNNI needs fewer for INT8. "
            "*Load* is the way from the files to the compiled graph. The rest of a start are imports of Python."
        ),
        phases(measured),
        (
            f"Memory is read after a batch of each size from {BATCHES[0]} to {BATCHES[-1]} images. *Resident* counts "
            "shared pages in full, *proportional* a share of them; only proportional numbers add up. *Others* are the "
            "decoders of this service and helpers of multiprocessing, or the workers of a peer."
        ),
        memory(measured),
        *([_killed_text(), killed_workers(away)] if away else []),
        "## Goals",
        goals(measured, away),
        *(["Not measured:", "\n".join(missing)] if missing else []),
    ]
    return "\n\n".join(parts) + "\n"


def _killed_text() -> str:
    return (
        f"{CLIENTS} clients ask for FP32 and {CLIENTS} for INT8, each again as soon as it has an answer or a refusal. "
        "The seconds count from SIGKILL to the end of the next answer with status 200."
    )

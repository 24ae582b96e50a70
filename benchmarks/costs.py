"""Where the processor time of a request goes: `python -m benchmarks.costs`. Needs two cores and `wrk`.

A request is one PNG of 32x32 for `int8`, and the log has level `info`. The HTTP process has one core to itself. The
worker, the decoders and wrk share the other cores. Python's profiler (cProfile) watches the thread of the event loop in
some rounds; others, without it, tell how much processor time a request really takes. The time of Python code is scaled
from the first to the second, so code of many small calls still gets a somewhat larger part than it has.
"""

import argparse
import json
import os
import pstats
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tabulate import tabulate

from benchmarks.front import move
from benchmarks.profiled import BEGIN, END
from benchmarks.switched import cpu_seconds
from benchmarks.wrk import (
    PACKAGES,
    Contender,
    free_port,
    measure,
    png,
    process,
    require_wrk,
    wait_until_it_answers,
)
from common import machine

CLIENTS = (1, 32)
PHASES = {
    "send": ("httptools_impl.py:send", "httptools_impl.py:on_response_complete", "responses.py:", ":server_timing"),
    "log": ("service/logs.py:",),
    "metrics": ("service/metrics.py:", "service/histograms.py:", "prometheus_client/"),
    "assemble the answer": (":_executed", "service/answers.py:", "service/schemas.py:", "pydantic/", ":answered"),
    "decode": ("service/decod", "service/images.py:", "service/structure.py:", "models/preprocess.py:", "PIL/"),
    "queue and hand over": ("service/workers/", "service/shadow.py:", ":execute", ":_watch"),
    "receive and parse": ("httptools_impl.py:", "service/http/", "service/bodies.py:", "requests.py:", ":read"),
    "the rest of the way": ("service/",),
}
"""Phase -> beginnings and ends of `file:function`. The first phase that fits has the function. A function that fits
none, such as numpy's or one of the standard library, belongs to the phases of its callers."""
LOOP = "event loop: wake up, read from sockets, timers"
THREADS = "other threads: write the log, watch the decoders"
BEHIND = "worker and decoders, with the engine"
OTHER = "no phase"
Function = tuple[str, int, str]
"""File, line and name, as the profiler gives them."""


@dataclass(frozen=True)
class Watched:
    """What the profiler saw in one round."""

    stats: Mapping[Function, tuple[int, int, float, float, Mapping[Function, tuple[int, int, float, float]]]]
    """As `pstats.Stats.stats`: function -> calls, calls, own seconds, all seconds, callers."""
    thread: float
    """Seconds of processor time of the event loop's thread."""
    process: float
    """The same of all threads of the process."""

    def own_seconds(self) -> dict[str, float]:
        """Return the seconds of Python code by phase."""
        seconds: defaultdict[str, float] = defaultdict(float)
        for function, (_, _, own, _, _) in self.stats.items():
            for phase, share in self._shares(function, frozenset()).items():
                seconds[phase] += share * own
        return seconds

    def _shares(self, function: Function, seen: frozenset[Function]) -> Mapping[str, float]:
        """Return phase -> share of the function's own time. Callers count by the time that they spent in it."""
        if phase := phase_of(function):
            return {phase: 1.0}
        callers = {caller: times[2] for caller, times in self.stats[function][4].items() if caller not in seen}
        total = sum(callers.values())
        if not total:
            return {OTHER: 1.0}
        shares: defaultdict[str, float] = defaultdict(float)
        for caller, seconds in callers.items():
            for phase, share in self._shares(caller, seen | {function}).items():
                shares[phase] += share * seconds / total
        return shares


@cache
def phase_of(function: Function) -> str | None:
    """Return the phase that a function belongs to by its place; None if its callers decide."""
    file, _, name = function
    place = f"{file}:{name}"
    return next((phase for phase, parts in PHASES.items() if any(part in place for part in parts)), None)


@dataclass(frozen=True)
class Served:
    """A service that can be profiled."""

    pid: int
    contender: Contender
    folder: Path

    def watched(self, clients: int, seconds: int) -> tuple[Watched, float]:
        """Return what the profiler saw while clients sent requests, and the number of requests."""
        stats, times = self.folder / "stats", self.folder / "times"
        os.kill(self.pid, BEGIN)
        requests = measure(self.contender, clients, seconds, self.folder).rate * seconds
        os.kill(self.pid, END)
        deadline = time.monotonic() + 30
        while not times.exists():
            if time.monotonic() > deadline:
                sys.exit("error: the service wrote no profile within 30 s")
            time.sleep(0.05)
        seen = Watched(pstats.Stats(str(stats)).stats, **json.loads(times.read_text()))  # type: ignore[attr-defined]
        times.unlink()
        return seen, requests

    def costs(self, clients: int, seconds: int) -> dict[str, float]:
        """Return phase -> microseconds of processor time per request."""
        before = cpu_seconds(self.pid)
        requests = measure(self.contender, clients, seconds, self.folder).rate * seconds
        http, behind = 1e6 * (cpu_seconds(self.pid) - before) / requests
        seen, profiled = self.watched(clients, seconds)
        own = seen.own_seconds()
        loop = 1e6 * (seen.thread - sum(own.values())) / profiled
        threads = 1e6 * (seen.process - seen.thread) / profiled
        scale = (http - loop - threads) / sum(own.values())
        return {phase: scale * spent for phase, spent in own.items()} | {LOOP: loop, THREADS: threads, BEHIND: behind}


@contextmanager
def served(variant: str) -> Iterator[Served]:
    """Start a service whose HTTP process has the first core to itself."""
    first, *others = sorted(os.sched_getaffinity(0))
    if not others:
        sys.exit("error: two cores are needed, one for the HTTP process and one for wrk")
    port = free_port()
    contender = Contender(variant, f"http://127.0.0.1:{port}/predict/{variant or 'fp32'}", png(), "image/png")
    with tempfile.TemporaryDirectory() as name, machine.bound_to(set(others)):
        folder = Path(name)
        command = ("benchmarks.profiled", str(port), str(folder), *filter(None, [variant]))
        with (folder / "log").open("w") as log, process(*command, stderr=log) as server:
            wait_until_it_answers(contender)
            move(server.pid, {first})
            measure(contender, max(CLIENTS), 1, folder)
            yield Served(server.pid, contender, folder)


def table(costs: Mapping[int, Mapping[str, float]]) -> str:
    """Return the table: a row for each phase, a column for each number of clients."""
    parts = ("receive and parse", "decode", "queue and hand over", LOOP, "assemble the answer", "metrics", "log")
    phases = (*parts, "send", "the rest of the way", OTHER, THREADS)
    totals = {clients: sum(by_phase.get(phase, 0.0) for phase in phases) for clients, by_phase in costs.items()}
    rows = [
        (phase, *(cell(by_phase.get(phase, 0.0), totals[clients]) for clients, by_phase in costs.items()))
        for phase in phases
        if any(by_phase.get(phase, 0.0) >= 1 for by_phase in costs.values())
    ]
    rows.append(("HTTP process", *(f"{total:.0f}" for total in totals.values())))
    rows.append((BEHIND, *(f"{by_phase[BEHIND]:.0f}" for by_phase in costs.values())))
    headers = ("us of processor time a request", *(f"{n} client{'s' * (n > 1)}" for n in costs))
    return tabulate(rows, headers, tablefmt="pipe", disable_numparse=True)


def cell(microseconds: float, total: float) -> str:
    """Return microseconds and their share of the HTTP process's."""
    return f"{microseconds:.0f} ({microseconds / total:.0%})"


def main(argv: list[str] | None = None) -> None:
    """Print the machine and the table."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.costs", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--seconds", type=int, default=10, help="length of each round (%(default)s)")
    parser.add_argument("--variant", default="int8", help="the served variant; an empty name: no-op (%(default)s)")
    args = parser.parse_args(argv)
    require_wrk()
    print(json.dumps(machine.describe(*PACKAGES) | {"seconds": args.seconds}), flush=True)
    with served(args.variant) as service:
        print(table({clients: service.costs(clients, args.seconds) for clients in CLIENTS}), flush=True)


if __name__ == "__main__":
    main()

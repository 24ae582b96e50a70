"""How fast servers start and how much memory they take: `make bench-startup`, or `python -m benchmarks.startup`.

1. Starts: this service with INT8 alone, with FP32 alone and with both; ONNX Runtime and OpenVINO in a bare FastAPI app;
   LitServe as shipped; MLServer. In each round each server starts twice: with a cold cache of files, then with a warm
   one. Timed are readiness and the first prediction of each network. The peers run the same weights in INT8.
2. The memory of each process, after batches of every size that the service serves by default.
3. A worker of INT8 that is killed while clients keep FP32 and INT8 busy: the seconds until INT8 answers again.

Each server is alone while it is measured. The results are printed and written to --out.
"""

import argparse
import sys
import tempfile
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import uvloop

from benchmarks import startup_tables
from benchmarks.arrivals import Target
from benchmarks.revival import seconds_away
from benchmarks.starting import BATCHES, Server, StartFailed, drop_caches, started
from benchmarks.startup_servers import OURS, SERVERS, others
from benchmarks.startup_tables import Measured
from benchmarks.wrk import PACKAGES, ROOT, png
from common import machine


def measure(servers: Sequence[Server], rounds: int, folder: Path) -> dict[str, Measured]:
    """Start all servers in every round, in an order that turns round each time; return what was measured by name."""
    measured = {server.name: Measured() for server in servers}
    for number in range(rounds):
        for server in servers if number % 2 else reversed(servers):
            found = measured[server.name]
            if not found.reason:
                try:
                    _start_twice(server, found, folder)
                except (StartFailed, OSError) as error:
                    found.reason = str(error)
                print(f"round {number + 1}: {server.name} {found.reason}", file=sys.stderr, flush=True)
    return measured


def _start_twice(server: Server, found: Measured, folder: Path) -> None:
    found.cache = drop_caches()
    with started(server, folder / "log") as (_, start):
        found.cold.append(start)
    with started(server, folder / "log") as (running, start):
        found.warm.append(start)
        found.phases.append(running.phases())
        for count in BATCHES:
            running.predict(count)
        found.memory.append(running.memory())


def revivals(server: Server, rounds: int, folder: Path) -> list[float]:
    """Return, of each round, the seconds that INT8 is away after its worker was killed under load."""
    away = []
    for number in range(rounds):
        away.append(_revival(server, folder))
        print(f"round {number + 1}: {server.name}, INT8 is away for {away[-1]:.1f} s", file=sys.stderr, flush=True)
    return away


def _revival(server: Server, folder: Path) -> float:
    with started(server, folder / "log") as (running, _):
        url = f"http://127.0.0.1:{running.port}"
        targets = {path: Target(url + path, png(), "image/png") for path in server.paths}
        return uvloop.run(seconds_away(targets, "/predict/int8", running.worker_of_int8))


def main(argv: list[str] | None = None) -> None:
    """Measure, then print and write the tables."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.startup", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--rounds", type=int, default=5, help="number of rounds (%(default)s)")
    add("--against", type=Path, metavar="DIR", help="also measure the service of the checkout in this folder")
    add("--only", nargs="+", metavar="NAME", default=[""], help="only servers whose name contains one of these")
    add("--kills", type=int, default=3, help="number of killed workers for each service (%(default)s)")
    add(
        "--out", type=Path, default=ROOT / "docs" / "results" / "startup.md",
        help="file for the results (%(default)s)",
    )  # fmt: skip
    args = parser.parse_args(argv)
    older = others(args.against.resolve()) if args.against else ()
    servers = [server for server in (*SERVERS, *older) if any(part in server.name for part in args.only)]
    with tempfile.TemporaryDirectory() as name:
        measured = measure(servers, args.rounds, Path(name))
        killed = {
            server.name: revivals(server, args.kills, Path(name))
            for server in (OURS[-1], *older[-1:])
            if args.kills and server in servers and not measured[server.name].reason
        }
    conditions = machine.describe(*PACKAGES) | {"date": f"{datetime.now(UTC):%Y-%m-%d}", "rounds": args.rounds}
    text = startup_tables.document(conditions, measured, killed)
    print(text)
    args.out.parent.mkdir(parents=True, exist_ok=True)
    args.out.write_text(text)


if __name__ == "__main__":
    main()

"""What each by-pass of a library's usual way brings: `python -m benchmarks.bypasses`. Needs `wrk`.

A by-pass stays only where it brings more than 5 % of the throughput, or a function that the library lacks. Parts of the
service that use public interfaces only, and are there for their speed, are measured as well.

All are measured within one process, in short rounds of random order, with one PNG a request. Ratios of the throughput
are medians of the ratios within a round, with 95 % intervals. The processor time that a by-pass saves, as a share of
all processor time of a request, estimates what it brings where the cores are busy; other load on the machine disturbs
it less.
"""

import argparse
import json
import statistics
import tempfile
from collections.abc import Sequence
from pathlib import Path

from benchmarks.switched import AS_SERVED, switched_rounds
from benchmarks.wrk import CLIENTS, PACKAGES, Round, median, ratio, require_wrk, written
from common import machine

BYPASSES = {
    # by-pass: the arms with and without it
    "short cut around FastAPI": (AS_SERVED, "through FastAPI's routing"),
    "limits for slow clients": (AS_SERVED, "uvicorn's own protocol"),
    "histograms without locks": (AS_SERVED, "prometheus_client's histograms"),
}


def table(variant: str, rounds: int, seconds: int, folder: Path) -> str:
    """Return throughput and processor time with and without each by-pass."""
    arms = sorted({arm for pair in BYPASSES.values() for arm in pair})
    measured = switched_rounds(variant, arms, CLIENTS, rounds, seconds, folder)
    lines = [
        f"| {variant or 'no-op'}, requests/s (HTTP, us) | clients | with | without | with / without | time saved |",
        "|---|---|---|---|---|---|",
    ]
    for bypass, (used, unused) in BYPASSES.items():
        for count in CLIENTS:
            cells = measured[used, count], measured[unused, count]
            rates = " | ".join(f"{m.rate:,.0f} ({m.http_cpu:,.0f})" for m in map(median, cells))
            lines.append(f"| {bypass} | {count} | {rates} | {written(ratio(*cells))} | {saved(*cells):.1%} |")
    return "\n".join(lines)


def saved(used: Sequence[Round], unused: Sequence[Round]) -> float:
    """Return the processor time that a by-pass saves in the HTTP process, as a share of all that a request takes."""
    differences = [one.http_cpu - other.http_cpu for one, other in zip(unused, used, strict=True)]
    return statistics.median(differences) / median(used).cpu


def main(argv: list[str] | None = None) -> None:
    """Print the machine, then one Markdown table per engine."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.bypasses", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rounds", type=int, default=12, help="number of rounds (%(default)s)")
    parser.add_argument("--seconds", type=int, default=5, help="length of each round (%(default)s)")
    parser.add_argument("--variants", default="int8,", help="served variants, comma-separated; an empty name: no-op")
    args = parser.parse_args(argv)
    require_wrk()
    print(json.dumps(machine.describe(*PACKAGES) | {"rounds": args.rounds, "seconds": args.seconds}), flush=True)
    with tempfile.TemporaryDirectory() as folder:
        for variant in args.variants.split(","):
            print(table(variant, args.rounds, args.seconds, Path(folder)), flush=True)


if __name__ == "__main__":
    main()

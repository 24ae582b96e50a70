"""Every way to run the network on this CPU, side by side: `python -m benchmarks.engines --threads 1`.

Each row is a process of its own. All are up and warm before the first timed call; then they take turns, in a new random
order every round, idle while another is measured. The Markdown holds every thread count and batch size measured on this
CPU so far, so that a long run can be split: `--batches 1,8,32`, then `--batches 256`.
"""

import argparse
import json
import os
import random
import re
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from benchmarks import tables
from benchmarks.rows import ROWS, WARM_UP, Row
from common import machine

ROOT = Path(__file__).parents[1]
CALLS = {1: (20, 16), 8: (5, 12), 32: (2, 12), 256: (1, 4)}
"""By batch size: timed calls per turn, and rounds. Other sizes use the values of the next smaller one."""
PACKAGES = ("torch", "torchao", "onnxruntime", "openvino", "nncf", "numpy")
"""Packages whose versions the result names."""


class RowFailed(Exception):
    """A row cannot be built or run; the text says why."""


class Contender:
    """The process of one row."""

    def __init__(self, row: Row, threads: int, folder: Path, log: Path) -> None:
        self.row = row
        self._log = log
        with log.open("wb") as errors:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.rows", row.name, str(threads), str(folder)],
                cwd=ROOT, env=os.environ | row.environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
                stderr=errors, text=True,
            )  # fmt: skip

    def ask(self, *command: str | int) -> Any:
        """Send a command to the row's process and return the value that it answers.

        Raises:
            RowFailed: it answers with a reason, or has ended.
        """
        assert self._process.stdin
        assert self._process.stdout
        with suppress(BrokenPipeError):  # it has ended, which the next line reports
            print(json.dumps(command), file=self._process.stdin, flush=True)
        if not (line := self._process.stdout.readline()):
            raise RowFailed(f"its process ended with {self._process.wait()}; see {self._log}")
        answer = json.loads(line)
        if "reason" in answer:
            raise RowFailed(answer["reason"])
        return answer["value"]

    def close(self) -> None:
        self._process.kill()
        self._process.communicate()


@contextmanager
def contenders(rows: Sequence[Row], threads: int, folder: Path) -> Iterator[list[Contender]]:
    """Start every row's process, and end them all afterwards."""
    with ExitStack() as stack:
        started = []
        for row in rows:
            log = folder / (re.sub(r"\W+", "-", row.name) + ".log")
            started.append(Contender(row, threads, folder, log))
            stack.callback(started[-1].close)
        yield started


def measure(rows: Sequence[Row], threads: int, batches: Sequence[int], folder: Path, share: float) -> dict[str, Any]:
    """Return, by row, its score, resident bytes and seconds by batch size and round; or the reason why it failed."""
    found: dict[str, Any] = {row.name: {"seconds": {}} for row in rows}
    order = random.Random(0)
    with contenders(rows, threads, folder) as alive:

        def ask_all(*command: str | int) -> Iterator[tuple[str, Any]]:
            """Yield each row's answer; drop a row that fails, and note the reason."""
            for contender in order.sample(alive, len(alive)):
                try:
                    yield contender.row.name, contender.ask(*command)
                except RowFailed as failure:
                    alive.remove(contender)
                    found[contender.row.name] = {"reason": str(failure)}
                    print(f"{contender.row.name}: {failure}", file=sys.stderr, flush=True)

        for size in batches:
            for name, value in ask_all("prepare", size):
                found[name].setdefault("resident", {})[str(size)] = value
            calls, rounds = CALLS[max(known for known in CALLS if known <= size)]
            turns = ((turn, *cell) for turn in range(max(2, round(rounds * share))) for cell in ask_all("time", calls))
            for turn, name, value in turns:
                found[name]["seconds"].setdefault(str(size), []).append(value)
                print(f"batch {size}: round {turn + 1}, {name}", file=sys.stderr, flush=True)
        for name, value in ask_all("score"):
            found[name] |= value
    return found


def merged(parts: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return a run for each thread count, merged from runs of some batch sizes each; later runs win."""
    runs: dict[int, dict[str, Any]] = {}
    for part in parts:
        run = runs.setdefault(part["threads"], {"threads": part["threads"], "machines": [], "rows": {}})
        run["machines"].append(part["machine"])
        for name, found in part["rows"].items():
            known = run["rows"].get(name, {})
            if "reason" in found or "reason" in known:  # results from before a failure are from another build
                known = {}
            merged_row = {k: known.get(k, {}) | v if isinstance(v, dict) else v for k, v in found.items()}
            run["rows"][name] = known | merged_row
    return [runs[threads] for threads in sorted(runs)]


def conditions() -> dict[str, Any]:
    """Return the conditions of the numbers."""
    return machine.describe(*PACKAGES) | {"date": f"{datetime.now(UTC):%Y-%m-%d}", "warm_up": WARM_UP}


def short_name(cpu: str, isa: str) -> str:
    """Return `intel-xeon-processor-avx512-vnni` for `Intel(R) Xeon(R) Processor @ 2.1GHz`, `avx512_vnni+avx2`.

    CPUs of one name may differ in their instruction sets, and then in what wins.
    """
    plain = re.sub(r"\(\w+\)|@.*", " ", cpu)
    return re.sub(r"[\W_]+", "-", f"{plain} {isa.partition('+')[0]}").strip("-").lower()


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.engines", description=__doc__)
    parser.add_argument("--threads", default="1,2", help="thread counts, measured one after the other (%(default)s)")
    parser.add_argument("--batches", default="1,8,32,256", help="batch sizes (%(default)s)")
    parser.add_argument(
        "--rows",
        nargs="+",
        metavar="NAME",
        help="only rows whose name contains one of these; --results stays as it is",
    )
    parser.add_argument(
        "--checkpoint",
        type=Path,
        help="measure this network instead of the bundled one, with its card beside it; --results stays as it is",
    )
    parser.add_argument("--share", type=float, default=1.0, help="share of the usual number of rounds (%(default)s)")
    parser.add_argument("--prepare", action="store_true", help="only build the files that the rows keep in --work")
    parser.add_argument(
        "--work", type=Path, default=ROOT / "runs" / "bench", help="folder for built peers and logs (%(default)s)"
    )
    parser.add_argument(
        "--results", type=Path, default=ROOT / "docs" / "results", help="folder for the Markdown (%(default)s)"
    )
    args = parser.parse_args(argv)
    rows = [row for row in ROWS.values() if not args.rows or any(part in row.name for part in args.rows)]
    network = f"{args.checkpoint.stem}-" if args.checkpoint else ""
    if args.checkpoint:
        os.environ["CHECKPOINT"] = str(args.checkpoint.resolve())  # which every row's process loads
    batches, name = [int(size) for size in args.batches.split(",")], short_name(machine.name(), machine.isa())
    for threads in map(int, args.threads.split(",")):
        folder: Path = args.work / f"{network}{name}-{threads}"
        folder.mkdir(parents=True, exist_ok=True)
        found = measure(rows, threads, batches, folder, 0 if args.prepare else args.share)
        run = {"threads": threads, "machine": conditions(), "rows": found}
        print(tables.timings(run), tables.ratios(run), sep="\n\n", flush=True)
        if not (args.rows or args.prepare or args.checkpoint):
            (folder / f"measured-{args.batches}.json").write_text(json.dumps(run))
            parts = sorted(args.work.glob(f"{name}-*/measured-*.json"), key=lambda path: path.stat().st_mtime)
            args.results.mkdir(parents=True, exist_ok=True)
            runs = merged([json.loads(path.read_text()) for path in parts])
            (args.results / f"engines-{name}.md").write_text(tables.document(runs))


if __name__ == "__main__":
    main()

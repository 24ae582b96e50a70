"""Load from several processes: how rounds are shared, how records are merged, and what the loss of a worker does."""

import math
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.wrk import free_port
from loadtest.client.messages import Done, Order, merged, packed, shares, unpacked
from loadtest.plan import Round, Workload
from loadtest.report.schema import read
from tests.loadtest.builders import FP32, INT8, request, stretch
from tests.service.processes import until

ROOT = Path(__file__).parents[2]
QUICK = ("--concurrency", 3, "--round", 0.4, "--settle", 0.1, "--warm-up", 0.2)


def planned(**workload: float) -> Round:
    """Return a round of two arms."""
    return Round((FP32, INT8), Workload(**workload), 3, 0.25, 1.0, 7)


def test_users_are_dealt_out() -> None:
    """Five users on three workers are two, two and one; with one user, two workers have nothing to do."""
    assert [part and part.workload.concurrency for part in shares(planned(concurrency=5), 3)] == [2, 2, 1]
    assert [part and part.workload.concurrency for part in shares(planned(concurrency=1), 3)] == [1, None, None]


def test_arrivals_are_split_into_independent_streams() -> None:
    """The rates add up, and no two streams of two rounds in a row have the same seed."""
    parts = [part for one in (7, 8) for part in shares(Round((FP32,), Workload(rate=30), 0, 0, 1, one), 3)]
    assert [part.workload.rate for part in parts] == [10] * 6
    assert len({part.seed for part in parts}) == 6


def test_records_survive_the_network() -> None:
    """A message comes out as it went in, numbers that are not stated included."""
    record = stretch({"fp32": [request(0.5, 0.1, sequence=4, answer=3), request(0.6, 0.2, error="timeout")]})
    came = unpacked(Done, packed(Done(2, record)))
    first, second = came.stretch.requests["fp32"]
    assert (first.answer, first.sequence, second.error, came.number) == ((3,), 4, "timeout", 2)
    assert math.isnan(first.batch_size)
    assert unpacked(Order, packed(Order(1, planned(rate=5.0)))) == Order(1, planned(rate=5.0))


def test_records_are_merged_on_one_clock() -> None:
    """Each worker's times count from when it began to count itself; latencies and shares stay as they are."""
    early = stretch({"fp32": [request(0.0, 0.4), request(0.9, 0.4)]}, cpu=0.2, starved=1)
    other = stretch({"fp32": [request(1000.0, 0.4), request(1000.9, 0.4)]}, cpu=0.5, starved=2)
    late = replace(other, opened=1000.0, closed=1001.0)
    whole = merged([early, late], opened=50.0)
    assert (whole.opened, whole.closed, whole.cpu, whole.starved) == (50.0, 51.0, 0.5, 3)
    assert [r.end for r in whole.requests["fp32"]] == pytest.approx([50.4, 50.4, 51.3, 51.3])
    assert [r.latency for r in whole.requests["fp32"]] == pytest.approx([0.4] * 4)
    assert whole.answered(FP32) == pytest.approx(2 * early.answered(FP32))
    assert len(whole.lateness) == 2


@contextmanager
def started(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Start `python -m loadtest` with these arguments; it ends with the block."""
    command = [sys.executable, "-m", "loadtest", *map(str, arguments)]
    process = subprocess.Popen(
        command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True
    )
    with process:
        yield process
        process.kill()


@pytest.mark.slow
def test_two_workers_send_one_load(serve, images: Path, loadtest: Callable[..., object], tmp_path: Path) -> None:
    """Workers that join as from other machines send three users' load, and the report counts every request."""
    url, place = serve({"fp32": {"delay": 0.02}, "int8": {"delay": 0.01}}), f"127.0.0.1:{free_port()}"
    out = tmp_path / "out"
    with started("worker", place) as one, started("worker", place) as other:
        flags = ("--workers", 2, "--master", place, "--duration", 1.6, "--max-duration", 0.1, *QUICK)
        done = loadtest("--url", url, "--images", images, "--out", out, *flags)
        assert done.returncode in (0, 3), done.stderr  # 3 if other work on the machine made the run INVALID
        assert [one.wait(30), other.wait(30)] == [0, 0]
    report = read(out / "report.json")
    assert len(report.workers) == 2
    for cell in report.cells:
        assert cell.server.requests == cell.server.requests_sent > 0
    slow, fast = report.cells
    assert slow.images_per_second < fast.images_per_second < 310
    assert report.accuracy[0].images > 50
    assert "2 workers sent the load: worker 1 (" in "\n".join(report.notes)


@pytest.mark.slow
def test_a_lost_worker_makes_the_run_invalid(serve, images: Path, tmp_path: Path) -> None:
    """A worker is killed in the middle: the report of the rounds until then is INVALID and names it."""
    url, out = serve({"fp32": {"delay": 0.01}}), tmp_path / "out"
    with started("--url", url, "--images", images, "--out", out, "--workers", 2, "--duration", 60, *QUICK) as run:
        assert run.stdout is not None
        both = run.stdout.readline() + run.stdout.readline()
        joined = dict(re.findall(r"(worker \d) \(.*, process (\d+)\) joined", both))
        until((out / "rounds.jsonl.gz").exists)
        os.kill(int(joined["worker 2"]), signal.SIGKILL)
        said = run.stdout.read()
        assert run.wait(30) == 3
    assert re.search(r"INVALID: the run could not go on: worker 2 \(.*\) was lost", said)
    assert read(out / "report.json").partial

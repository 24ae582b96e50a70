"""The whole load test against fake services with known delays and mistakes."""

import csv
import gzip
from pathlib import Path

import pytest

from loadtest.client.server import Excluded
from loadtest.records import NEVER_SENT
from loadtest.report.schema import read

pytestmark = pytest.mark.slow
SOUND_OR_NOISY = (0, 3)
"""Exit codes of a run that measured. Other work on the machine can make a run of a few seconds INVALID, which is 3; its
numbers are still the planted ones."""
QUICK = ("--round", 0.5, "--settle", 0.1, "--warm-up", 0.2, "--max-duration", 0.1)


def test_a_comparison_finds_what_was_planted(serve, images, loadtest, tmp_path: Path) -> None:
    """Half the delay is twice the speed; wrong answers, left-out variants and the service's own times are reported."""
    url = serve(
        {
            "fp32": {"delay": 0.030, "serial": True},
            "int8": {"delay": 0.015, "serial": True, "wrong_below": 26},
            "fp16": {"info": {"state": "unavailable", "reason": "no GPU"}},
        }
    )
    out = tmp_path / "out"
    flags = ("--concurrency", "1,4", "--duration", 3, "--out", out, "--fail-on", "p50<0.95", "--fail-on", "p50>1.05")
    done = loadtest("--url", url, "--images", images, *flags, *QUICK)
    assert done.returncode in (1, 3), done.stderr  # 3 if other work on the machine made the run INVALID
    assert "FAILED p50<0.95: int8, 1 user: 0." in done.stdout
    assert "FAILED p50>1.05" not in done.stdout
    report = read(out / "report.json")
    cells = {(c.arm, c.concurrency): c for c in report.cells}

    fast, slow = cells["int8", 1], cells["fp32", 1]
    assert 0.015 < fast.latency.p50 < 0.060
    assert 0.030 < slow.latency.p50 < 0.100
    assert cells["fp32", 4].latency.p50 == pytest.approx(4 * slow.latency.p50, rel=0.5)
    assert cells["fp32", 4].server.queue_seconds.mean > 0.080
    assert fast.server.inference_seconds.mean == pytest.approx(0.015)
    assert fast.server.phase_seconds["receive"] > 0
    assert fast.server.requests == fast.server.requests_sent
    assert fast.server.memory.now == {"rss": 2e8}
    assert 0 < fast.server.front_cpu < 1.2
    assert not fast.server.front_is_limit
    assert fast.server.memory.batch == {"activation_peak": 3e6}

    ratio = next(c for c in report.comparisons if c.workload == "1 user").ratios.p50
    assert 0.3 < ratio.estimate < 0.9
    accuracy = {row.arm: row for row in report.accuracy}
    assert accuracy["fp32"].accuracy.estimate == 1.0
    assert accuracy["int8"].against.difference.high < 0
    assert report.excluded == (Excluded("fp16", "unavailable: no GPU"),)
    assert "\n4 users" in done.stdout
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert (out / "report.html").stat().st_size > 1000
    assert "| int8" in (out / "report.md").read_text()
    with gzip.open(out / "requests.csv.gz", "rt") as file:
        assert len(file.readlines()) == 1 + sum(c.server.requests_sent for c in report.cells)


def test_errors_are_counted_and_make_a_run_invalid(serve, images, loadtest, tmp_path: Path) -> None:
    """One request in ten fails: the exit code is 3, and the report names the error."""
    url = serve({"fp32": {"delay": 0.002, "fail_every": 10}})
    done = loadtest(
        "--url", url, "--images", images, "--concurrency", "2", "--duration", 1, "--out", tmp_path / "out", *QUICK
    )
    assert done.returncode == 3
    assert "INVALID: fp32, 2 users:" in done.stdout
    assert "503 Too many images are waiting" in done.stdout


@pytest.mark.parametrize("payload", ["png", "raw"])
def test_many_images_in_one_request_are_all_scored(serve, images, loadtest, tmp_path: Path, payload: str) -> None:
    """Accuracy and throughput count images, not requests."""
    url = serve({"fp32": {"delay": 0.010, "wrong_below": 26}})
    out = tmp_path / "out"
    flags = ("--payload", payload, "--images-per-request", 7, "--concurrency", "1", "--duration", 1, "--out", out)
    assert loadtest("--url", url, "--images", images, *flags, *QUICK).returncode in SOUND_OR_NOISY
    report = read(out / "report.json")
    assert report.accuracy[0].images == 100
    assert 0.8 < report.accuracy[0].accuracy.estimate < 0.97
    cell = report.cells[0]
    assert cell.images_per_second == pytest.approx(7 * cell.requests_per_second)


def test_nothing_to_measure_is_exit_code_2(serve, images, loadtest, tmp_path: Path) -> None:
    """The last line on stderr is the reason."""
    url = serve({"fp16": {"info": {"state": "unavailable", "reason": "no GPU"}}})
    done = loadtest("--url", url, "--images", images, "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: no variant can be measured (fp16: unavailable: no GPU)"


def test_a_stall_shows_in_the_open_workload_and_hides_in_the_closed_one(
    serve, images, loadtest, tmp_path: Path
) -> None:
    """One second of stall delays one request of a closed workload, but all that an open one wants meanwhile."""
    spec = {"delay": 0.002, "serial": True, "stall_at": 150, "stall_seconds": 1.0}
    url = serve({"fp32": spec, "int8": spec})
    out = tmp_path / "out"
    once = ("--round", 5, "--settle", 0, "--warm-up", 0, "--duration", 5, "--max-duration", 5, "--out", out)
    loadtest("--url", url, "--images", images, "--variants", "fp32", "--rate", 100, *once)
    latency = read(out / "report.json").cells[0].latency
    assert latency.p99 > 0.7
    assert latency.p95 > 0.4

    loadtest("--url", url, "--images", images, "--variants", "int8", "--concurrency", 1, *once)
    latency = read(out / "report.json").cells[0].latency
    assert latency.max > 1.0
    assert latency.p99 < 0.4


def test_a_continuous_run_shows_stalls_longer_than_its_rounds(serve, images, loadtest, tmp_path: Path) -> None:
    """The service stalls for 0.8 s in every 4 s: 20 % of the requests wait, and p95 is 0.6 s.

    With a pause for the answers after each round of 0.2 s, less than 5 % would wait, and p95 would be that between two
    stalls.
    """
    url, out = serve({"fp32": {"stall_every": 4.0, "stall_seconds": 0.8}}), tmp_path / "out"
    flags = ("--rate", 100, "--duration", 4, "--round", 0.2, "--settle", 0, "--warm-up", 0.2, "--out", out)
    done = loadtest("--url", url, "--images", images, "--continuous", *flags)
    assert done.returncode in SOUND_OR_NOISY, done.stderr
    (cell,) = read(out / "report.json").cells
    assert cell.latency.p95 == pytest.approx(0.6, abs=0.3)
    assert cell.latency.max > 0.7
    assert cell.server.requests == cell.server.requests_sent


def test_requests_that_no_user_is_free_to_send_are_counted(serve, images, loadtest, tmp_path: Path) -> None:
    """Four users send 20 of 50 requests per second: the others fail as never sent, and the generator is the reason."""
    url, out = serve({"fp32": {"delay": 0.2}}), tmp_path / "out"
    flags = ("--rate", 50, "--users", 4, "--timeout", 1, "--round", 3, "--warm-up", 0, "--duration", 3, "--out", out)
    done = loadtest("--url", url, "--images", images, *flags)
    assert done.returncode == 3, done.stderr
    assert "INVALID: fp32, 50 requests/s: generator limited: " in done.stdout
    assert "cannot hold" not in done.stdout
    (cell,) = read(out / "report.json").cells
    assert cell.requests == pytest.approx(150, rel=0.3)
    assert cell.errors[NEVER_SENT] > 20
    assert cell.latency.requests + sum(cell.errors.values()) == cell.requests


@pytest.mark.parametrize(("die_at", "code"), [(5, 2), (150, 3)])
def test_a_service_that_dies_is_an_error(serve, images, loadtest, tmp_path: Path, die_at: int, code: int) -> None:
    """During the warm-up nothing was measured (2); later the report is INVALID (3). Both say why."""
    url = serve({"fp32": {"delay": 0.01, "die_at": die_at}})
    flags = ("--concurrency", 1, "--duration", 3, "--round", 0.3, "--settle", 0, "--warm-up", 0.2, "--timeout", 2)
    done = loadtest("--url", url, "--images", images, *flags, "--out", tmp_path / "out")
    assert done.returncode == code, done.stderr
    assert f"the run could not go on: {url}/metrics cannot be reached" in " ".join((done.stdout + done.stderr).split())
    assert "Traceback" not in done.stderr


def test_metrics_that_are_no_numbers_leave_a_report(serve, images, loadtest, tmp_path: Path) -> None:
    """A gauge and a counter of the service are NaN; the report lacks them and holds the times."""
    url = serve({"fp32": {"memory": "nan", "strange": "nan"}})
    flags = ("--concurrency", 1, "--duration", 0.5, "--out", tmp_path / "out")
    done = loadtest("--url", url, "--images", images, *flags, *QUICK)
    assert done.returncode in SOUND_OR_NOISY, done.stderr
    (cell,) = read(tmp_path / "out" / "report.json").cells
    assert cell.server.memory.process is None
    assert cell.latency.p50 > 0


def test_contended_arrivals_are_independent(serve, images, loadtest, tmp_path: Path) -> None:
    """Each arm gets a Poisson stream of its own at the whole rate, so no two requests are due at once."""
    url, out = serve({"fp32": {}, "int8": {}}), tmp_path / "out"
    flags = ("--contended", "--rate", 100, "--duration", 3, "--max-duration", 3, "--out", out)
    done = loadtest("--url", url, "--images", images, *flags, *QUICK)
    assert done.returncode in SOUND_OR_NOISY, done.stderr
    with gzip.open(out / "requests.csv.gz", "rt") as file:
        sent = list(csv.DictReader(file))
    assert len({row["intended"] for row in sent}) == len(sent)
    for cell in read(out / "report.json").cells:
        assert cell.requests == pytest.approx(300, rel=0.3)

"""Runs that end early: signals to a real process, and what a killed process leaves."""

import csv
import gzip
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from loadtest import journal, recover
from loadtest.report.schema import read
from tests.service.processes import until

pytestmark = pytest.mark.slow
INT = signal.SIGINT


@contextmanager
def running(serve: Callable[..., str], images: Path, out: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """Start a long run whose rounds last a tenth of a second, and yield its process when a round has ended."""
    command = [sys.executable, "-m", "loadtest", "--url", serve({"fp32": {"delay": 0.002}}), "--images", str(images)]
    command += ["--concurrency", "1", "--duration", "600", "--settle", "0", "--warm-up", "0", "--out", str(out)]
    flags = flags or ("--round", "0.1")
    with subprocess.Popen([*command, *flags], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def wait_for(process: subprocess.Popen[str], words: str) -> None:
    """Read the process's lines until one holds the words."""
    assert process.stderr is not None
    assert any(words in line for line in process.stderr), words


@pytest.mark.parametrize(
    ("signum", "code"), [(INT, 130), (signal.SIGTERM, 143), (signal.SIGHUP, 129)], ids=["ctrl-c", "term", "hup"]
)
def test_a_signal_leaves_a_partial_report(serve, images, tmp_path: Path, signum: signal.Signals, code: int) -> None:
    """The report says that it is partial, the exit code is 128 + the signal, and there is no traceback."""
    with running(serve, images, tmp_path) as process:
        wait_for(process, "round ")
        process.send_signal(signum)
        out, err = process.communicate(timeout=30)
    assert process.returncode == code, err
    assert "stopped before its end" in out
    assert "Traceback" not in err
    assert read(tmp_path / "report.json").partial


def test_a_second_ctrl_c_drops_the_round(serve, images, tmp_path: Path) -> None:
    """The round would last ten minutes. None ended before it, so there is nothing to report, and no traceback."""
    with running(serve, images, tmp_path, "--round", "600") as process:
        wait_for(process, "measuring fp32")
        process.send_signal(INT)
        wait_for(process, "Ctrl-C again drops the round")
        process.send_signal(INT)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert err == "stopped before the first round ended: there is nothing to report\n"


def test_a_closed_terminal_costs_no_report(serve, images, tmp_path: Path) -> None:
    """Nobody reads the process's lines any more when SIGHUP comes."""
    with running(serve, images, tmp_path) as process:
        wait_for(process, "round ")
        assert process.stdout
        assert process.stderr
        process.stdout.close()
        process.stderr.close()
        process.send_signal(signal.SIGHUP)
        assert process.wait(timeout=30) == 129
    assert read(tmp_path / "report.json").partial


def test_a_killed_run_leaves_its_rounds(serve, images, tmp_path: Path) -> None:
    """`python -m loadtest report` makes a report of the rounds that had ended, although the last line is torn."""
    with running(serve, images, tmp_path) as process:
        wait_for(process, "round ")
        process.kill()
    assert not (tmp_path / "report.json").exists()
    for file in ("requests.csv.gz", "rounds.jsonl.gz"):
        whole = (tmp_path / file).stat().st_size
        with (tmp_path / file).open("ab") as torn:
            torn.write((tmp_path / file).read_bytes()[:100])
        assert whole > 100
    assert recover.main([os.fspath(tmp_path)]) in (0, 3)
    report = read(tmp_path / "report.json")
    assert report.partial
    assert report.cells[0].rounds
    assert report.cells[0].requests > 0


def test_a_signal_during_a_search_leaves_its_runs(serve, images, tmp_path: Path) -> None:
    """The partial report tells what the runs of `--slo` showed. So does the report that is made of the raw files."""
    flags = ("--round", "0.1", "--duration", "0.1", "--max-duration", "0.1", "--slo", "p90=500ms")
    with running(serve, images, tmp_path, *flags) as process:
        wait_for(process, "searching for the highest load that holds p90 <= 500 ms")
        until(lambda: journal.read(tmp_path).searched, what="run of the search in the raw files")
        process.send_signal(signal.SIGTERM)
        _, err = process.communicate(timeout=30)
    assert process.returncode == 143, err
    (level,) = read(tmp_path / "report.json").levels
    assert " under any load: the search was stopped after " in level.sentence()
    with gzip.open(tmp_path / "requests.csv.gz", "rt") as rows:
        searched = [row for row in csv.DictReader(rows) if row["workload"].startswith("search: ")]
    assert sum(int(row["counted"]) for row in searched) == sum(trial.requests for trial in level.found.tried)
    recover.main([os.fspath(tmp_path)])
    assert read(tmp_path / "report.json").levels == (level,)


def test_a_folder_without_a_run_is_a_sentence(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 2."""
    assert recover.main([os.fspath(tmp_path)]) == 2
    assert "No such file" in capsys.readouterr().err

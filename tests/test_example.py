"""The whole way of docs/your-network.md: a network of one's own from a .pt file to a report."""

import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import example
from loadtest.report.schema import read
from models import prepare
from models.card import read_card

ROOT = Path(__file__).parents[1]
FLAGS = "--input-size 64 --mean 0.4914,0.4822,0.4465 --std 0.2470,0.2435,0.2616 --no-max-pool --held-out 12 --threads 1"


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_from_a_pt_file_to_a_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A ResNet34 for six classes at 64 pixels is prepared, served and compared; the report names its classes.

    The reports of so short a run may be INVALID (3), because other work on the machine disturbs it.
    """
    example.main(["--out", str(tmp_path), "--photos", "4"])
    checkpoint, photos, folder = (str(tmp_path / name) for name in ("mine.pt", "photos", "mine"))
    prepare.main([checkpoint, "--images", photos, "--out", folder, *FLAGS.split()])
    monkeypatch.setenv("CHECKPOINT", folder)
    quick = "--variants int8 --concurrency 2 --duration 2 --max-duration 0.1 --round 0.5 --warm-up 0.5"
    command = [sys.executable, "deploy/compare.py", "--out", str(tmp_path / "report"), *quick.split()]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode in (0, 3), done.stdout + done.stderr
    report = read(tmp_path / "report" / "report.json")
    assert (report.images.classes, report.images.formats) == (example.CLASSES, ("png",))
    assert report.images.count == 12
    (row,) = report.accuracy
    assert row.images == 12
    assert row.accuracy is not None
    assert row.accuracy.estimate > 0.7


@pytest.mark.slow
def test_a_wrong_pool_is_noticed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A 7x7 stem usually has a max-pool. Where nobody says so, and the pictures say no, a warning names the flag."""
    example.main(["--out", str(tmp_path), "--photos", "6"])
    flags = FLAGS.replace("--no-max-pool --held-out 12", "--held-out 30 --variants fp32-cpu").split()
    prepare.main(
        [str(tmp_path / "mine.pt"), "--images", str(tmp_path / "photos"), "--out", str(tmp_path / "x"), *flags]
    )
    assert "WARNING: with --no-max-pool, 9" in capsys.readouterr().out
    assert read_card(tmp_path / "x").test_accuracy is None

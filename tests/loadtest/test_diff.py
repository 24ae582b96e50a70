"""Two reports against each other."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.diff import condition, main


def write(path: Path, scale: float, seed: int, right: str = "1" * 200, count: int = 12, **changes: Any) -> str:
    """A report with one cell of 12 rounds on a machine that is a little different every round."""
    rng = np.random.default_rng(seed)
    rounds = [
        {
            "seconds": 1.0,
            "finished": int(rng.normal(100, 2) / scale),
            "latencies": list(scale * rng.lognormal(0, 0.02) * rng.lognormal(-4, 0.3, 100)),
        }
        for _ in range(12)
    ]
    report = {
        "schema": 1,
        "invalid": [],
        "partial": False,
        "settings": {"payload": "png", "images_per_request": 1, "contended": False},
        "client": {"cpu": "a CPU"},
        "images_sha256": "same",
        "cells": [{"arm": "int8", "workload": "8 users", "saturated": False, "rounds": rounds[:count]}],
        "accuracy": [{"arm": "int8", "right": right}],
    }
    path.write_text(json.dumps(report | changes))
    return str(path)


def test_a_slower_build_fails_the_condition(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """30 % slower is more than the 10 % that are allowed."""
    a, b = write(tmp_path / "a.json", 1.0, 1), write(tmp_path / "b.json", 1.3, 2)
    assert main([a, b, "--fail-on", "p50>1.10"]) == 1
    printed = capsys.readouterr().out
    assert "FAILED p50>1.1: int8, 8 users: 1.2" in printed
    assert "slower at p50" in printed


def test_the_same_build_passes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Noise breaks no build, and is not ranked."""
    a, b = write(tmp_path / "a.json", 1.0, 1), write(tmp_path / "b.json", 1.0, 2)
    assert main([a, b, "--fail-on", "p99>1.10", "--fail-on", "images_per_second<0.95", "--fail-on", "accuracy<-1"]) == 0
    assert "p50: no difference shown" in capsys.readouterr().out


def test_a_loss_of_accuracy_on_the_same_images_fails(tmp_path: Path) -> None:
    """Sixteen of 200 images are lost: the interval is paired."""
    a = write(tmp_path / "a.json", 1.0, 1)
    b = write(tmp_path / "b.json", 1.0, 2, right="0" * 16 + "1" * 184)
    assert main([a, b, "--fail-on", "accuracy<-1"]) == 1


def test_an_invalid_report_proves_nothing(tmp_path: Path) -> None:
    """Exit code 3, also when no condition failed; a run that was stopped early may lack the worst of it."""
    a, b = write(tmp_path / "a.json", 1.0, 1), write(tmp_path / "b.json", 1.0, 2, invalid=["late"])
    assert main([a, b]) == 3
    assert main([a, write(tmp_path / "b.json", 1.0, 2, partial=True)]) == 3


def test_a_variant_that_is_gone_does_not_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What could not be measured again is no success of a condition."""
    a, b = tmp_path / "a.json", write(tmp_path / "b.json", 1.0, 2)
    before = json.loads(Path(b).read_text())
    before["cells"].append(before["cells"][0] | {"arm": "fp32"})
    a.write_text(json.dumps(before))
    assert main([str(a), b, "--fail-on", "p50>1.10"]) == 3
    assert "MISSING in B: fp32, 8 users" in capsys.readouterr().out
    assert main([str(a), b]) == 0


def test_a_condition_that_cannot_be_judged_does_not_pass(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Too few requests for a p99.9 of anything, too few rounds for an interval."""
    a, b = write(tmp_path / "a.json", 1.0, 1, count=2), write(tmp_path / "b.json", 1.0, 2, count=2)
    assert main([a, b, "--fail-on", "p99>1.10"]) == 3
    assert "UNDECIDED p99>1.1: int8, 8 users: p99: too few requests to say" in capsys.readouterr().out
    assert main([a, b, "--fail-on", "images_per_second<0.9"]) == 3


def test_a_saturated_cell_has_no_latencies_to_compare(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """They only say how long the run was."""
    a, b = write(tmp_path / "a.json", 1.0, 1), write(tmp_path / "b.json", 1.0, 2)
    report = json.loads(Path(b).read_text())
    report["cells"][0]["saturated"] = True
    Path(b).write_text(json.dumps(report))
    assert main([a, b, "--fail-on", "p50>1.10"]) == 3
    assert "p50: not comparable" in capsys.readouterr().out


@pytest.mark.parametrize("setting", ["payload", "images_per_request", "contended"])
def test_reports_with_other_settings_are_not_compared(
    setting: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Eight images in a request are not one image eight times as slow."""
    settings = {"payload": "png", "images_per_request": 1, "contended": False}
    a = write(tmp_path / "a.json", 1.0, 1)
    b = write(tmp_path / "b.json", 1.0, 2, settings=settings | {setting: "other"})
    assert main([a, b]) == 2
    assert setting in capsys.readouterr().err


def test_accuracy_on_other_images_is_compared_unpaired(tmp_path: Path) -> None:
    """The interval is wider: eight points of 200 images each could be chance, thirty could not."""
    a = write(tmp_path / "a.json", 1.0, 1, right="0" * 20 + "1" * 180)
    for wrong, code in ((36, 0), (80, 1)):
        right = "0" * wrong + "1" * (200 - wrong)
        b = write(tmp_path / "b.json", 1.0, 2, right=right, images_sha256="other")
        assert main([a, b, "--fail-on", "accuracy<-2"]) == code


@pytest.mark.parametrize("content", ["{}", "[]", "no"])
def test_what_is_no_report_is_an_error(tmp_path: Path, content: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 2 and a sentence."""
    (tmp_path / "b.json").write_text(content)
    assert main([write(tmp_path / "a.json", 1.0, 1), str(tmp_path / "b.json")]) == 2
    assert capsys.readouterr().err.startswith("error: ")


@pytest.mark.parametrize("text", ["p98>1", "p99=1", "p99>", ">1", "p99>x"])
def test_a_condition_that_makes_no_sense_is_refused(text: str, tmp_path: Path) -> None:
    """By argparse, with the metrics that there are."""
    with pytest.raises(SystemExit, match="2"):
        main(["a", "b", "--fail-on", text])


def test_a_condition_is_read_with_spaces() -> None:
    """As in the documentation."""
    assert condition(" p99 > 1.10 ") == ("p99", ">", 1.1)

"""The comparison of two reports."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from loadtest.diff import main
from loadtest.options import Options
from loadtest.plan import Arm, Workload
from loadtest.records import Played
from loadtest.report import write as files
from tests.loadtest.builders import FP32, INT8, played, report, request, settings, some_images

IMAGES = 200
ORDER = np.random.default_rng(settings().seed).permutation(IMAGES)
"""The order in which every arm sends the images."""


def rounds(arm: Arm, rng: np.random.Generator, scale: float, wrong: int, count: int, due: float) -> list[Played]:
    """Return rounds on a machine that differs a little from round to round; the first `wrong` images are misjudged."""
    made = []
    for block in range(count):
        sent = int(rng.normal(100, 2) / scale)
        latencies = scale * rng.lognormal(0, 0.02) * rng.lognormal(-4, 0.3, sent)
        answers = [int(ORDER[(100 * block + i) % IMAGES] >= wrong) for i in range(sent)]
        requests = [
            request(due, float(latency), 100 * block + i, answer=answer)
            for i, (latency, answer) in enumerate(zip(latencies, answers, strict=True))
        ]
        made.append(played(arm, requests, block=block))
    return made


class Reports:
    """Writes reports into a folder: A is the first one, B the second one."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._written = 0

    def __call__(
        self,
        scale: float = 1.0,
        *,
        wrong: int = 0,
        count: int = 12,
        due: float = 0.1,
        arms: tuple[Arm, ...] = (INT8,),
        options: Options | None = None,
        images: int = 0,
        **changes: Any,
    ) -> str:
        """Write a report with `count` rounds per arm, all times multiplied by `scale`; return its path."""
        self._written += 1
        rng = np.random.default_rng(self._written)
        options = options or settings()
        some = [p for arm in arms for p in rounds(arm, rng, scale, wrong, count, due)]
        some = [replace(p, round=replace(p.round, workload=options.workloads[0])) for p in some]
        made = report(some, options, images=some_images(IMAGES, images), **changes)
        return str(files.write(made, self._folder / str(self._written))[0])


@pytest.fixture
def write(tmp_path: Path) -> Reports:
    """A function that writes a report and returns its path."""
    return Reports(tmp_path)


def test_a_slower_build_fails_the_condition(write: Reports, capsys: pytest.CaptureFixture[str]) -> None:
    """30 % slower is more than the 10 % that are allowed."""
    assert main([write(1.0), write(1.3), "--fail-on", "p50>1.10"]) == 1
    printed = capsys.readouterr().out
    assert re.search(r"^FAILED p50>1\.1: int8, 8 users: 1\.[23]\d x \[", printed, re.MULTILINE)
    assert "slower at p50" in printed


def test_the_same_build_passes(write: Reports, capsys: pytest.CaptureFixture[str]) -> None:
    """Chance alone fails no condition, and is called no difference."""
    conditions = ["--fail-on", "p99>1.10", "--fail-on", "images_per_second<0.95", "--fail-on", "accuracy<-1"]
    assert main([write(), write(), *conditions]) == 0
    assert "p50: no difference shown" in capsys.readouterr().out


def test_a_loss_of_accuracy_on_the_same_images_fails(write: Reports) -> None:
    """16 of 200 images are lost; the interval is paired."""
    assert main([write(), write(wrong=16), "--fail-on", "accuracy<-1"]) == 1


@pytest.mark.parametrize("flaw", [{"problems": ("late",)}, {"partial": True}])
def test_an_unsound_report_proves_nothing(flaw: dict[str, Any], write: Reports) -> None:
    """The exit code is 3 for an INVALID report and for a run that was stopped early."""
    assert main([write(), write(**flaw)]) == 3


def test_a_variant_that_is_gone_does_not_pass(write: Reports, capsys: pytest.CaptureFixture[str]) -> None:
    """With a condition the exit code is 3; without one the difference in the variants is only printed."""
    a, b = write(arms=(FP32, INT8)), write()
    assert main([a, b, "--fail-on", "p50>1.10"]) == 3
    assert "MISSING in B: fp32, 8 users" in capsys.readouterr().out
    assert main([a, b]) == 0


def test_a_condition_that_cannot_be_judged_does_not_pass(write: Reports, capsys: pytest.CaptureFixture[str]) -> None:
    """Two rounds hold too few requests for a p99, and are too few for an interval of the throughput."""
    a, b = write(count=2), write(count=2)
    assert main([a, b, "--fail-on", "p99>1.10"]) == 3
    assert "UNDECIDED p99>1.1: int8, 8 users: p99: too few requests to say" in capsys.readouterr().out
    assert main([a, b, "--fail-on", "images_per_second<0.9"]) == 3


def test_a_saturated_cell_has_no_latencies_to_compare(write: Reports, capsys: pytest.CaptureFixture[str]) -> None:
    """In B no answer arrives in the counted time, so its latencies only show how long the rounds were."""
    open_workload = settings(workloads=(Workload(rate=100),))
    a, b = write(options=open_workload), write(options=open_workload, due=0.999)
    assert main([a, b, "--fail-on", "p50>1.10"]) == 3
    printed = capsys.readouterr().out
    assert "p50: not comparable" in printed
    assert "INVALID" not in printed


@pytest.mark.parametrize("setting", [{"payload": "raw"}, {"images_per_request": 8}, {"contended": True}], ids=str)
def test_reports_with_other_settings_are_not_compared(
    setting: dict[str, Any], write: Reports, capsys: pytest.CaptureFixture[str]
) -> None:
    """The error names the setting."""
    assert main([write(), write(options=settings(**setting))]) == 2
    assert next(iter(setting)) in capsys.readouterr().err


@pytest.mark.parametrize(("wrong", "code"), [(36, 0), (80, 1)])
def test_accuracy_on_other_images_is_compared_unpaired(wrong: int, code: int, write: Reports) -> None:
    """The interval is wider: chance can explain a loss of eight points of 200 images each, but not of thirty."""
    assert main([write(wrong=20), write(wrong=wrong, images=1), "--fail-on", "accuracy<-2"]) == code


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("{}", "it has no schema_version"),
        ("[]", "it has no schema_version"),
        ("no", "it is not JSON"),
        ('{"schema": 1, "cells": []}', "has schema version 1, and this load test reads version 5"),
        ('{"schema_version": 5}', "does not fit schema version 5: created: "),
    ],
)
def test_a_file_that_is_no_report_is_an_error(
    content: str, words: str, write: Reports, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code is 2, and one line names the file and the reason."""
    (tmp_path / "b.json").write_text(content)
    assert main([write(), str(tmp_path / "b.json")]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert f"{tmp_path / 'b.json'}" in line
    assert words in line


def test_a_report_of_the_version_before_is_compared(write: Reports, capsys: pytest.CaptureFixture[str]) -> None:
    """It lacks the fields that are new, which have a default."""
    a, b = write(arms=(FP32, INT8)), write(arms=(FP32, INT8))
    Path(a).write_text(json.dumps(as_version_4(json.loads(Path(a).read_text()))))
    assert main([a, b]) == 0
    assert "p50: no difference shown" in capsys.readouterr().out
    Path(a).write_text(Path(b).read_text())


def as_version_4(document: dict[str, Any]) -> dict[str, Any]:
    """Return a report without the fields that version 5 added."""
    cells = document["cells"]
    for parts, names in (
        ([document], "workers energy prices decisions"),
        ([document["settings"]], "workers master price_per_hour"),
        (document["settings"]["urls"], "protocol models input encoding output classes mean std"),
        (document["servers"], "protocol"),
        ([row for server in document["servers"] for row in server["variants"]], "model_version"),
        ([document["images"]], "classes unlabelled formats"),
        (document["arms"], "asked"),
        (cells, "energy"),
        ([one for cell in cells for one in cell["rounds"]], "began energy"),
        ([comparison["ratios"] for comparison in document["comparisons"]], "energy"),
    ):
        for part in parts:
            for name in names.split():
                del part[name]
    return document | {"schema_version": 4}


def test_a_condition_that_makes_no_sense_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is 2, and the last line shows the form."""
    with pytest.raises(SystemExit, match="2"):
        main(["a", "b", "--fail-on", "p98>1"])
    assert "expected [not] METRIC>NUMBER" in capsys.readouterr().err.splitlines()[-1]


def test_a_loss_that_is_not_excluded_fails(write: Reports) -> None:
    """`not p50<1.02` fails unless less than 2 % more is shown; wandering machines leave more open."""
    assert main([write(), write(), "--fail-on", "not p50<1.005"]) == 1
    assert main([write(), write(), "--fail-on", "not p50<1.5"]) == 0

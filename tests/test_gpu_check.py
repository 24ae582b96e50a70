"""`make gpu-check` without a GPU: its commands, its errors, and its document."""

import json
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import pytest

from benchmarks import gpu_check, gpu_report, wheels
from benchmarks.gpu_ceilings import Ceilings
from benchmarks.gpu_check import STEPS, Check, Machine, Step

ROOT = Path(__file__).parents[1]
H200 = Machine("2.11.0+cu130", [("NVIDIA H200", 90)])
CEILINGS = Ceilings({"float32": 5e13, "float16": 8e14}, 4e12, 5e10, 5e10)


def check(out: Path, **changes: Path) -> Check:
    """Return the flags of a check into `out`."""
    return Check(**({"out": out, "data": out, "wheels": None, "results": out / "results"} | changes))


def cell(variant: str, backend: str, size: int, seconds: float, **changes: object) -> dict[str, object]:
    """Return a cell of engines.json."""
    dtype = "float16" if variant == "fp16" else "float32"
    return {
        "variant": variant, "backend": backend, "dtype": dtype, "batch_size": size, "runs": 20, "error": "",
        "inference_seconds": seconds, "fastest_seconds": seconds, "slowest_seconds": seconds, "wall_seconds": seconds,
        "memory_bytes": 2**20, "memory_kind": "cuda_graph",
    } | changes  # fmt: skip


@pytest.fixture
def engines(tmp_path: Path) -> Path:
    """Return a folder with results of two engines and the baseline."""
    cells = [
        cell("fp16", "cudnn", 1, 0.0003), cell("fp16", "cudnn", 256, 0.001), cell("fp32", "eager", 256, 0.008),
        cell("fp16", "inductor", 256, 0.0, error="no C compiler"),
    ]  # fmt: skip
    document = {"machine": {"gpu": "NVIDIA H200"}, "ceilings": asdict(CEILINGS), "cells": cells}
    (tmp_path / "engines.json").write_text(json.dumps(document))
    return tmp_path


@pytest.mark.skipif(bool(gpu_check.look().gpus), reason="this machine has a GPU")
@pytest.mark.parametrize("flags", [[], ["--dry-run"]], ids=["run", "dry run"])
def test_without_a_gpu_it_says_so(flags: list[str], tmp_path: Path) -> None:
    """Without a GPU the command exits with 2 and one sentence and writes nothing; a dry run also lists every step."""
    command = [sys.executable, "-m", "benchmarks.gpu_check", "--out", str(tmp_path / "out"), *flags]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "a CUDA GPU: torch" in done.stdout or "error: no CUDA GPU: torch" in done.stderr
    assert "Traceback" not in done.stderr
    assert [step.name for step in STEPS if flags and f"{step.name}: " not in done.stdout] == []
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)
def test_every_step_is_a_command_that_takes_its_flags(step: Step, tmp_path: Path) -> None:
    """Each step's module exists and knows each flag of the step."""
    module, *flags = step.command(check(tmp_path), H200).split()
    done = subprocess.run(
        [sys.executable, "-m", module, "--help"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert [flag for flag in flags if flag.startswith("--") and flag not in done.stdout] == []


def test_a_missing_data_set_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A dry run names the missing data set and its place."""
    missing = gpu_check.dry_run(list(STEPS), check(tmp_path), H200)
    assert missing == [lacking(tmp_path)]
    assert "missing: " in capsys.readouterr().out


def test_a_missing_data_set_stops_the_run_before_its_first_step(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without the data set a run that needs it starts no step; steps that do not need it run."""
    monkeypatch.setattr(gpu_check, "look", lambda: H200)
    monkeypatch.setattr(gpu_check, "missing_packages", lambda _: [])
    ran: list[str] = []
    monkeypatch.setattr(gpu_check, "run", lambda step, *_: not ran.append(step.name))
    flags = ["--out", str(tmp_path / "out"), "--data", str(tmp_path)]
    assert (gpu_check.main(flags), ran) == (2, [])
    assert lacking(tmp_path) in capsys.readouterr().err
    assert (gpu_check.main([*flags, "--steps", "tests,engines"]), ran) == (0, ["tests", "engines"])


def lacking(folder: Path) -> str:
    """Return the message on a missing data set."""
    place = f"{folder}/cifar-10-batches-bin/test_batch.bin"
    return f"{place} (CIFAR-10: `python -m models.cifar10` downloads it, --data names another folder)"


def test_a_package_in_neither_place_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A package is missing if neither interpreter nor folder has it, however its wheel spells the name."""
    monkeypatch.setattr(gpu_check, "has", lambda _: False)
    (tmp_path / "prometheus_client-0.24-py3-none-any.whl").touch()
    names = {wheels.name_of(line) for line in gpu_check.missing_packages(tmp_path)}
    assert "litserve" in names
    assert not {"prometheus-client", "torch", "torchvision", "ruff"} & names
    assert {"pytest", "pytest-timeout", "locust"} <= names


def test_only_what_the_gpu_can_is_evaluated() -> None:
    """The variants of TF32 and bf16 are evaluated from Ampere on."""
    assert H200.variants == "fp32,fp16,fp32-tf32,bf16"
    assert Machine("2.11", [("Tesla T4", 75)]).variants == "fp32,fp16"


def test_a_failed_step_fails_the_check_and_stops_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A failed step leaves its log, and the end of the log is printed."""
    step = Step("broken", "fails", lambda *_: "this.does.not.exist")
    assert not gpu_check.run(step, check(tmp_path), H200)
    assert "No module named" in (tmp_path / "broken.log").read_text()
    assert "-- broken: status 1" in capsys.readouterr().out


@pytest.mark.parametrize("flags", [["--steps", "engine"], ["--wheels", "nowhere"]], ids=lambda flags: flags[0])
def test_mistakes_in_flags_are_refused(flags: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """A wrong flag is an error that says what is expected."""
    with pytest.raises(SystemExit):
        gpu_check.parse(flags)
    assert "expected names of tests, engines" in (error := capsys.readouterr().err) or "make wheels" in error


def test_the_floor_is_the_slower_of_computing_and_copying() -> None:
    """The floor of 256 images is their multiplications, the floor of one image is reading the weights."""
    assert CEILINGS.floor_seconds("float16", 256) == pytest.approx(256 * 1.110845e9 / 8e14, rel=1e-4)
    assert CEILINGS.floor_seconds("float16", 1) == pytest.approx(11_173_962 * 2 / 4e12, rel=1e-3)


def test_the_report_holds_goals_against_measurements(engines: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """8 x eager FP32 meets its goal, 36 % of the rate does not; goals of steps that did not run are not measured."""
    gpu_report.main(["--out", str(engines), "--results", str(engines / "results")])
    text = (engines / "results" / "nvidia-h200.md").read_text()
    assert "| 8.0 x | yes |" in text
    assert "| 36% | no |" in text
    assert "| 0.000300 s | yes |" in text
    assert text.count("| not measured |") == 3
    assert text.count("Not run: this step left no result") == 4
    assert "- fp16, inductor, 256 images: no C compiler" in text
    assert "| 8.0 x | yes |" in capsys.readouterr().out


def test_the_report_reads_what_the_steps_write(engines: Path) -> None:
    """The report has the tables of evaluation and comparison, the served share, and pytest's counts."""
    paired = {"agreement": {"estimate": 0.9995}, "mcnemar_p": 0.5}
    evaluation = {"variants": {"fp16": {"results": {"clean": {"paired": paired}}}}}
    for name, text in {
        "evaluation/evaluation.json": json.dumps(evaluation),
        "evaluation/evaluation.md": "# Title\n\n| a | fp16 |\n|:--|--:|\n| top-1 | 90.2 |\n\nmore\n",
        "compare/report.md": "# Load test\n\n- fp16 wins\n\n## In numbers\n\n| arm | p50 |\n|---|---|\n"
        "| fp16 | 1 ms |\n"
        "\n## What it ran on\n\n- rounds: 10 of 1 s\n- made: by a command with a path\n",
        "tests.xml": '<testsuites><testsuite tests="3" failures="1" errors="0" skipped="1"><testcase name="t_a"/>'
        '<testcase name="t_b"><failure/></testcase><testcase name="t_c"><skipped/></testcase></testsuite></testsuites>',
        "served.json": json.dumps(
            [
                {
                    "variant": "fp16",
                    "images_a_request": 256,
                    "clients": 4,
                    "seconds": 4,
                    "served": [80.0],
                    "bare": [100.0],
                }
            ]
        ),
    }.items():
        (engines / name).parent.mkdir(exist_ok=True)
        (engines / name).write_text(text)
    _, text = gpu_report.document(engines)
    assert "- fp16 wins\n\n### In numbers\n\n| arm | p50 |" in text
    assert "- rounds: 10 of 1 s" in text
    assert "with a path" not in text
    assert "| 80% | yes |" in text
    assert "| 99.950% | yes |" in text
    assert "| p = 0.500 | yes |" in text
    assert "| top-1 | 90.2 |" in text
    assert "| fp16 | 1 ms |" in text
    assert "1 passed, 1 failed: t_b, 1 skipped." in text
    assert "Not run" not in text

"""The whole load test against fake services with known delays and mistakes."""

import gzip
import json
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow
QUICK = ("--round", 0.5, "--settle", 0.1, "--warm-up", 0.2)


def test_a_comparison_finds_what_was_planted(serve, images, loadtest, tmp_path: Path) -> None:
    """Half the delay is twice the speed; wrong answers and left-out variants show; the service's own view is there."""
    url = serve(
        {
            "fp32": {"delay": 0.020, "serial": True},
            "int8": {"delay": 0.010, "serial": True, "wrong_below": 26},
            "fp16": {"card": {"state": "unavailable", "reason": "no GPU"}},
        }
    )
    out = tmp_path / "out"
    done = loadtest("--url", url, "--images", images, "--concurrency", "1,4", "--duration", 3, "--out", out, *QUICK)
    assert done.returncode == 0, done.stderr
    report = json.loads((out / "report.json").read_text())
    cells = {(c["arm"], c["concurrency"]): c for c in report["cells"]}

    fast, slow = cells["int8", 1], cells["fp32", 1]
    assert 0.010 < fast["latency"]["p50"] < 0.016
    assert 0.020 < slow["latency"]["p50"] < 0.028
    assert cells["fp32", 4]["latency"]["p50"] == pytest.approx(4 * slow["latency"]["p50"], rel=0.3)
    assert cells["fp32", 4]["server"]["queue_seconds"]["mean"] == pytest.approx(0.063, rel=0.3)
    assert fast["server"]["inference_seconds"]["mean"] == pytest.approx(0.010)
    assert fast["server"]["requests"] == fast["server"]["requests_sent"]
    assert fast["server"]["memory"]["now"] == {"rss": 2e8}
    assert fast["server"]["memory"]["batch"] == {"activation_peak": 3e6}

    ratio = next(c for c in report["comparisons"] if c["workload"] == "1 user")["ratios"]["p50"]
    assert ratio["low"] <= 0.55
    assert ratio["high"] >= 0.5
    accuracy = {row["arm"]: row for row in report["accuracy"]}
    assert accuracy["fp32"]["accuracy"]["estimate"] == 1.0
    assert accuracy["int8"]["against"]["difference"]["high"] < 0
    assert report["excluded"] == [{"name": "fp16", "reason": "unavailable: no GPU"}]
    assert done.stdout.rstrip().splitlines()[-1].startswith("4 users")
    assert "Traceback" not in done.stderr
    assert "Warning" not in done.stderr
    assert (out / "report.html").stat().st_size > 1000
    assert "| int8" in (out / "report.md").read_text()
    with gzip.open(out / "requests.csv.gz", "rt") as file:
        assert len(file.readlines()) == 1 + sum(c["server"]["requests_sent"] for c in report["cells"])


def test_errors_are_counted_and_make_a_run_invalid(serve, images, loadtest, tmp_path: Path) -> None:
    """One in ten fails: exit code 3, and the report says which error."""
    url = serve({"fp32": {"delay": 0.002, "fail_every": 10}})
    done = loadtest(
        "--url", url, "--images", images, "--concurrency", "2", "--duration", 1, "--out", tmp_path / "out", *QUICK
    )
    assert done.returncode == 3
    assert "INVALID: fp32, 2 users:" in done.stdout
    assert "503 Too many images are waiting" in done.stdout


@pytest.mark.parametrize("payload", ["png", "raw"])
def test_many_images_in_one_request_are_all_scored(serve, images, loadtest, tmp_path: Path, payload: str) -> None:
    """Accuracy is over images and throughput counts images, not requests."""
    url = serve({"fp32": {"delay": 0.010, "wrong_below": 26}})
    out = tmp_path / "out"
    flags = ("--payload", payload, "--images-per-request", 7, "--concurrency", "1", "--duration", 1, "--out", out)
    assert loadtest("--url", url, "--images", images, *flags, *QUICK).returncode == 0
    report = json.loads((out / "report.json").read_text())
    assert report["accuracy"][0]["images"] == 100
    assert 0.8 < report["accuracy"][0]["accuracy"]["estimate"] < 0.97
    cell = report["cells"][0]
    assert cell["images_per_second"] == pytest.approx(7 * cell["requests_per_second"])


def test_nothing_to_measure_is_exit_code_2(serve, images, loadtest, tmp_path: Path) -> None:
    """The reason is on stderr, without a traceback."""
    url = serve({"fp16": {"card": {"state": "unavailable", "reason": "no GPU"}}})
    done = loadtest("--url", url, "--images", images, "--out", tmp_path)
    assert done.returncode == 2
    assert done.stderr.splitlines()[-1] == "error: no variant can be measured (fp16: unavailable: no GPU)"

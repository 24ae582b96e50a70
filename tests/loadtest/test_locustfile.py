"""`locust -f loadtest/locustfile.py`, as locust itself runs it."""

import json
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]
pytestmark = pytest.mark.slow


def test_locust_runs_the_named_variants(serve, images) -> None:
    """Only the named variant is called, without failures, and the service counts as many requests as locust."""
    url = serve({"fp32": {"delay": 0.002}, "int8": {"delay": 0.002}})
    command = [sys.executable, "-m", "locust", "-f", "loadtest/locustfile.py", "--host", url, "--headless", "--json"]
    command += ["--users", "2", "--spawn-rate", "2", "--run-time", "2s", "--stop-timeout", "5", "int8"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    (row,) = json.loads(done.stdout)
    assert (row["name"], row["num_failures"]) == ("/predict/int8", 0)
    text = httpx.get(f"{url}/metrics").text
    assert f'precision_requests_total{{outcome="ok",variant="int8"}} {float(row["num_requests"])}' in text

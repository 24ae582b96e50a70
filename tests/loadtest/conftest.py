"""Fake services on free ports, the load test as a process of its own, and a check of every report that a test writes.

The load test runs in its own process because gevent patches the sockets of the process that imports it.
"""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import jsonschema_rs
import numpy as np
import pytest

HERE = Path(__file__).parent
SCHEMA = HERE.parents[1] / "loadtest" / "report" / "report.schema.json"
Spec = dict[str, dict[str, Any]]
Serve = Callable[..., str]


@pytest.fixture(scope="session")
def schema() -> jsonschema_rs.Validator:
    """A validator of the schema that is published beside the code."""
    return jsonschema_rs.validator_for(json.loads(SCHEMA.read_text()))


@pytest.fixture(autouse=True)
def written_reports_fit_the_schema(tmp_path: Path, schema: jsonschema_rs.Validator) -> Iterator[None]:
    """Every `report.json` that a test leaves in its folder fits the published schema."""
    yield
    for path in tmp_path.rglob("report.json"):
        schema.validate(json.loads(path.read_text()))


@pytest.fixture
def serve() -> Iterator[Serve]:
    """A function that starts a fake service and returns its URL; the services end with the test.

    With the files of a certificate and its key the service speaks HTTPS.
    """
    with ExitStack() as stack:

        def start(spec: Spec, *tls: Path) -> str:
            command = [sys.executable, str(HERE / "fake_server.py"), json.dumps(spec), *map(str, tls)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            assert process.stdout is not None
            return f"http{'s' if tls else ''}://127.0.0.1:{int(process.stdout.readline())}"

        yield start


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """A file of 100 images whose class is their first byte modulo 10, as the fake service expects."""
    pixels = np.random.default_rng(7).integers(0, 256, (100, 3, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels, labels=(pixels[:, 0, 0, 0] % 10).astype(np.int64))
    return tmp_path / "images.npz"


@pytest.fixture
def loadtest() -> Callable[..., subprocess.CompletedProcess[str]]:
    """A function that runs `python -m loadtest` with the given arguments to its end."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error::ResourceWarning", "-m", "loadtest", *map(str, arguments)]
        environment = os.environ | {"COLUMNS": "200"}
        return subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=120, cwd=HERE.parents[1], env=environment
        )

    return run

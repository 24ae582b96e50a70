"""Fake services on free ports, and the load test as a process of its own: it patches the sockets of its process."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

HERE = Path(__file__).parent
Spec = dict[str, dict[str, Any]]


@pytest.fixture
def serve() -> Iterator[Callable[[Spec], str]]:
    """Starts fake services and stops them; calling it gives the URL of a new one."""
    with ExitStack() as stack:

        def start(spec: Spec) -> str:
            command = [sys.executable, str(HERE / "fake_server.py"), json.dumps(spec)]
            process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, text=True))
            stack.callback(process.kill)
            assert process.stdout is not None
            return f"http://127.0.0.1:{int(process.stdout.readline())}"

        yield start


@pytest.fixture
def images(tmp_path: Path) -> Path:
    """100 images whose class is their first byte modulo 10; the fake service knows that."""
    pixels = np.random.default_rng(7).integers(0, 256, (100, 3, 32, 32), dtype=np.uint8)
    np.savez(tmp_path / "images.npz", images=pixels, labels=(pixels[:, 0, 0, 0] % 10).astype(np.int64))
    return tmp_path / "images.npz"


@pytest.fixture
def loadtest() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Runs `python -m loadtest` with the given arguments to its end."""

    def run(*arguments: object) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-W", "error::ResourceWarning", "-m", "loadtest", *map(str, arguments)]
        environment = os.environ | {"COLUMNS": "200"}
        return subprocess.run(
            command, check=False, capture_output=True, text=True, timeout=120, cwd=HERE.parents[1], env=environment
        )

    return run

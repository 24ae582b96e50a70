"""What docs/api.md shows can be pasted and works."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.service.processes import ROOT, Service

TEXT = (ROOT / "docs" / "api.md").read_text()


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", TEXT, re.MULTILINE | re.DOTALL)


@pytest.fixture(scope="module")
def service(shared_calm: Service) -> Service:
    """Return the service with fake engines that several files share."""
    return shared_calm


def run(service: Service, folder: Path, *command: str, code: str) -> str:
    """The output of an example, run where docs/cat.png is."""
    (folder / "docs").symlink_to(ROOT / "docs")
    code = code.replace("127.0.0.1:8000", service.url.removeprefix("http://"))
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        command, input=code, cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_there_are_examples() -> None:
    """In curl, Python with two clients, and JavaScript (which tests/service/test_page.py runs)."""
    assert len(blocks("bash")) >= 3
    assert [name for name in ("httpx", "tritonclient") if not any(name in block for block in blocks("python"))] == []
    assert len(blocks("javascript")) == 1


@pytest.mark.needs("curl")
@pytest.mark.parametrize("code", blocks("bash"), ids=range(len(blocks("bash"))))
def test_shell_examples_run(service: Service, tmp_path: Path, code: str) -> None:
    """Every curl gets an answer that is no error."""
    out = run(
        service,
        tmp_path,
        "bash",
        "-euo",
        "pipefail",
        code=f'curl() {{ command curl -sS --fail-with-body "$@"; }}\n{code}',
    )
    assert out.count("{") > 0


@pytest.mark.parametrize("code", blocks("python"), ids=range(len(blocks("python"))))
def test_python_examples_run(service: Service, tmp_path: Path, code: str) -> None:
    """And print something."""
    assert run(service, tmp_path, sys.executable, "-", code=code).strip()

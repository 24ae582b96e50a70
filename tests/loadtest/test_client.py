"""The client's side of the load path: certificates, timeouts, strange answers, garbage collection."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import self_signed

pytestmark = pytest.mark.slow


def play(url: str, timeout: float = 10.0, **environment: str) -> dict[str, Any]:
    """Return what one round of the load generator printed."""
    command = [sys.executable, "-m", "tests.loadtest.generated", url, str(timeout)]
    done = subprocess.run(
        command, check=True, stdout=subprocess.PIPE, text=True, timeout=60, env=os.environ | environment
    )
    return dict(json.loads(done.stdout))


def test_requests_verify_certificates(serve, tmp_path: Path) -> None:
    """Requests to a service with an unknown certificate fail; SSL_CERT_FILE makes it known."""
    chain, key = self_signed(tmp_path)
    url = serve({"fp32": {}}, chain, key)
    assert play(url)["errors"] == ["no answer: SSLCertVerificationError"]
    assert play(url, SSL_CERT_FILE=str(chain))["errors"] == [""]


def test_a_timeout_is_called_a_timeout(serve) -> None:
    """The service takes longer than the requests wait."""
    assert play(serve({"fp32": {"delay": 5.0}}), timeout=0.3)["errors"] == ["timeout"]


def test_no_collection_runs_while_requests_do(serve) -> None:
    """The round allocates enough for many collections, and none begins between its first and its last request."""
    assert play(serve({"fp32": {}})) == {"errors": [""], "collections": 0}

"""A certificate for the tests that speak TLS."""

from pathlib import Path

import pytest

from tests.certificates import self_signed


@pytest.fixture(scope="session")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the files of a self-signed certificate for 127.0.0.1 and of its key."""
    return self_signed(tmp_path_factory.mktemp("tls"))

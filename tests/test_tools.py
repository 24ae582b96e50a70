"""What happens to a test whose program is missing, and that `.ci/run` installs the programs."""

import re
from pathlib import Path

import pytest

from tests import tools

CI = Path(__file__).parents[1] / ".ci" / "run"


@pytest.mark.parametrize(
    ("value", "outcome"), [("1", pytest.fail.Exception), ("", pytest.skip.Exception)], ids=["required", "optional"]
)
def test_a_missing_program(monkeypatch: pytest.MonkeyPatch, value: str, outcome: type[BaseException]) -> None:
    """The test is skipped, and fails if REQUIRE_TOOLS is 1; the reason says how to install the program."""
    monkeypatch.setenv("PATH", "")
    monkeypatch.setenv(tools.REQUIRE, value)
    with pytest.raises(outcome, match=r"curl is missing \(Debian: apt install curl\)"):
        tools.require("curl")


def test_ci_installs_every_debian_package() -> None:
    """The list of `.ci/run` has each program that comes from Debian."""
    (listed,) = re.findall(r"^for program in (.+); do$", CI.read_text(), re.MULTILINE)
    packages = {how.rpartition(" ")[2] for how in tools.INSTALL.values() if how.startswith("Debian")}
    assert set(listed.split()) == packages


def test_ci_requires_the_programs() -> None:
    """`.ci/run` sets REQUIRE_TOOLS, so that no test of a missing program is skipped there."""
    assert f"export {tools.REQUIRE}=1" in CI.read_text()

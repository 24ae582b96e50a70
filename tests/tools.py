"""The programs that tests start, where they are looked for, and how to install one that is missing."""

import os
import shutil
import sys
from pathlib import Path

import pytest

REQUIRE = "REQUIRE_TOOLS"
"""The environment variable that makes a missing program fail a test (1) instead of skipping it. `.ci/run` sets it."""
OTHER_NAMES = {"chromium": ("chromium-browser", "google-chrome")}
DEBIAN = "Debian: apt install {}"
INSTALL = {
    "chromium": DEBIAN.format("chromium"),
    "curl": DEBIAN.format("curl"),
    "haproxy": DEBIAN.format("haproxy"),
    "kubectl": "make kubectl",
    "prometheus": DEBIAN.format("prometheus"),
    "promtool": DEBIAN.format("prometheus"),
}
"""Program -> how to install it."""


def find(program: str) -> str:
    """Return the path of a program, from PATH, beside the interpreter or in /usr/sbin; empty if it is missing."""
    path = os.pathsep.join((os.environ.get("PATH", os.defpath), str(Path(sys.executable).parent), "/usr/sbin"))
    names = (program, *OTHER_NAMES.get(program, ()))
    return next((found for name in names if (found := shutil.which(name, path=path))), "")


def require(program: str) -> None:
    """Skip the running test if the program is missing; fail it if REQUIRE_TOOLS is 1."""
    if find(program):
        return
    reason = f"{program} is missing ({INSTALL[program]})"
    if os.environ.get(REQUIRE) == "1":
        pytest.fail(f"{reason}, and {REQUIRE}=1 forbids to skip", pytrace=False)
    pytest.skip(reason)

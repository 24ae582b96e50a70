"""The sentence for work that needs torch, where an installation has none. Imports no torch.

An installation for serving on a CPU leaves torch out (docs/decisions/0012-serving-without-torch.md).
"""

import sys
from importlib.util import find_spec

INSTALL = "`make install` or `pip install -c constraints.txt '.[service]'` installs it; the image `--target gpu` has it"
MISSING = f"which is not installed here: {INSTALL}"


def has_torch() -> bool:
    """Return whether torch is installed. Does not import it."""
    return "torch" in sys.modules or find_spec("torch") is not None


def torch_or_sentence(work: str) -> str:
    """Return a sentence that says what to install for `work`, which needs torch; empty if torch is installed."""
    return "" if has_torch() else f"{work} needs torch, {MISSING}"


def torch_or_exit(command: str) -> None:
    """End the process of a command with that sentence and status 1 unless torch is installed."""
    if sentence := torch_or_sentence(command):
        sys.exit(f"error: {sentence}")

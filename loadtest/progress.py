"""The progress of a run: one line that is rewritten on a terminal, or a line now and then in a log."""

import shutil
import sys
import time
from typing import TextIO

from loadtest.console import tell

BAR = 20
"""Characters of the bar."""
LOG_EVERY = 10.0
"""Seconds between two lines in a log, which cannot be rewritten."""


def duration(seconds: float) -> str:
    """Return seconds in words: 75 gives `1 min 15 s`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Progress:
    """The line that shows the steps done, the step that ended last, and the time that the rest takes at this pace."""

    def __init__(self, steps: float, stream: TextIO | None = None) -> None:
        self._steps = steps
        self._done = 0.0
        self._stream = stream or sys.stderr
        self._began = time.perf_counter()
        self._logged = -LOG_EVERY
        self._width = 0

    def extend(self, steps: float) -> None:
        """Add steps to the plan."""
        self._steps += steps

    def say(self, text: str) -> None:
        """Print a line that stays."""
        self.clear()
        tell(text, self._stream)

    def step(self, text: str, size: float = 1.0) -> None:
        """Count a step as done, or one as long as `size` steps, and show its result `text`."""
        self._done += size
        passed = time.perf_counter() - self._began
        left = duration(passed / self._done * max(0, self._steps - self._done))
        share = min(1.0, self._done / self._steps)
        if self._stream.isatty():
            bar = "█" * round(share * BAR) + "░" * (BAR - round(share * BAR))
            line = f"{bar} {share:4.0%}  {left} left  {text}"
            tell(
                "\r" + line.ljust(self._width)[: max(20, shutil.get_terminal_size().columns - 1)], self._stream, end=""
            )
            self._width = len(line)
        elif passed - self._logged >= LOG_EVERY:
            self._logged = passed
            tell(f"{share:4.0%}, {left} left: {text}", self._stream)

    def clear(self) -> None:
        """Remove the rewritten line."""
        if self._stream.isatty() and self._width:
            tell("\r" + " " * min(self._width, shutil.get_terminal_size().columns - 1) + "\r", self._stream, end="")
            self._width = 0

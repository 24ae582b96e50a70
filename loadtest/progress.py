"""What the user sees while rounds are played: one line that is rewritten, or a line now and then in a log."""

import shutil
import sys
import time
from typing import TextIO

BAR = 20
LOG_EVERY = 10.0
"""Seconds between two lines where the line cannot be rewritten."""


def duration(seconds: float) -> str:
    """`75` as `1 min 15 s`."""
    minutes, rest = divmod(max(0, round(seconds)), 60)
    return f"{minutes} min {rest:02d} s" if minutes else f"{rest} s"


class Progress:
    """Shows how much of the planned time has passed, what is running, and how long it still takes."""

    def __init__(self, seconds: float, stream: TextIO | None = None) -> None:
        self.seconds = seconds
        self._stream = stream or sys.stderr
        self._began = time.perf_counter()
        self._logged = -LOG_EVERY
        self._width = 0

    def extend(self, seconds: float) -> None:
        """More is to come than was planned."""
        self.seconds = time.perf_counter() - self._began + seconds

    def say(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        print(text, file=self._stream, flush=True)

    def show(self, text: str) -> None:
        """What is happening now."""
        passed = time.perf_counter() - self._began
        share = min(1.0, passed / self.seconds) if self.seconds else 1.0
        left = duration(max(0.0, self.seconds - passed))
        if self._stream.isatty():
            bar = "█" * round(share * BAR) + "░" * (BAR - round(share * BAR))
            line = f"{bar} {share:4.0%}  {left} left  {text}"
            self._stream.write("\r" + line.ljust(self._width)[: max(20, _columns() - 1)])
            self._width = len(line)
            self._stream.flush()
        elif passed - self._logged >= LOG_EVERY:
            self._logged = passed
            print(f"{share:4.0%}, {left} left: {text}", file=self._stream, flush=True)

    def clear(self) -> None:
        """Take the rewritten line away."""
        if self._stream.isatty() and self._width:
            self._stream.write("\r" + " " * min(self._width, _columns() - 1) + "\r")
            self._width = 0


def _columns() -> int:
    return shutil.get_terminal_size().columns

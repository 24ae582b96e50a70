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
    """Shows how many of the planned steps are done, what is running, and how long the rest takes at this pace."""

    def __init__(self, steps: float, stream: TextIO | None = None) -> None:
        self._steps = steps
        self._done = 0.0
        self._stream = stream or sys.stderr
        self._began = time.perf_counter()
        self._logged = -LOG_EVERY
        self._width = 0

    def extend(self, steps: float) -> None:
        """More is to come than was planned."""
        self._steps += steps

    def say(self, text: str) -> None:
        """A line that stays."""
        self.clear()
        print(text, file=self._stream, flush=True)

    def step(self, text: str, size: float = 1.0) -> None:
        """A step is done, or something as long as `size` of them; what it showed."""
        self._done += size
        passed = time.perf_counter() - self._began
        left = duration(passed / self._done * max(0, self._steps - self._done))
        share = min(1.0, self._done / self._steps)
        if self._stream.isatty():
            bar = "█" * round(share * BAR) + "░" * (BAR - round(share * BAR))
            line = f"{bar} {share:4.0%}  {left} left  {text}"
            self._stream.write("\r" + line.ljust(self._width)[: max(20, shutil.get_terminal_size().columns - 1)])
            self._width = len(line)
            self._stream.flush()
        elif passed - self._logged >= LOG_EVERY:
            self._logged = passed
            print(f"{share:4.0%}, {left} left: {text}", file=self._stream, flush=True)

    def clear(self) -> None:
        """Take the rewritten line away."""
        if self._stream.isatty() and self._width:
            self._stream.write("\r" + " " * min(self._width, shutil.get_terminal_size().columns - 1) + "\r")
            self._width = 0

"""Logs on stderr: readable lines on a terminal, JSON objects elsewhere. Each prediction has one line.

A thread writes them. Whoever logs only puts text into a queue, so a pipe that nobody reads stops neither an answer nor
the end of the process. The queue holds text and not records (logging.handlers.QueueHandler), because a record per
prediction would cost more than all metrics (benchmarks/measuring.py).
"""

import atexit
import io
import json
import logging
import os
import queue
import select
import sys
import threading
import time
from collections.abc import Iterable
from functools import cache
from typing import NamedTuple

from service.errors import REASONS

READABLE = "%(levelname)s %(name)s: %(message)s"
UNKNOWN = "unknown"
"""The name for every variant that does not exist: a path must not get into a log, a span or a label."""
COMPARE = "compare"
"""The name for the variants of a comparison, which asks all of them."""

STDERR = 2
"""The file descriptor of standard error."""
MAX_WAITING = 10_000
"""Texts that may wait to be written, 5 MB of lines of predictions. Further ones are dropped."""
PAUSE_SECONDS = 0.02
"""The pause of the thread whenever it has written everything, so that a busy service does not wake it for each line."""
END_SECONDS = 1.0
"""The time that a process has at its end to write what waits."""


class Output(io.TextIOBase):
    """A text stream to a file descriptor that never blocks: a daemon thread writes. `dropped` counts lost lines.

    A line is lost if MAX_WAITING others wait, or if the descriptor takes no data, as on a full disk.
    """

    def __init__(self, descriptor: int) -> None:
        self.dropped = 0
        self._descriptor = descriptor
        self._waiting: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="log", daemon=True)
        self._thread.start()

    def write(self, text: str) -> int:
        """Let the thread write the text."""
        if self._waiting.qsize() < MAX_WAITING:
            self._waiting.put(text)
        else:
            self.dropped += text.count("\n")
        return len(text)

    def isatty(self) -> bool:
        """Return True if the descriptor is a terminal."""
        return os.isatty(self._descriptor)

    def fileno(self) -> int:
        """Return the descriptor."""
        return self._descriptor

    def finish(self) -> None:
        """Write what waits, for END_SECONDS at most. Nothing can be written afterwards."""
        self._waiting.put(None)
        self._thread.join(END_SECONDS)

    def _write_all(self) -> None:
        """Write until `finish`. Texts that wait are written together, as long as a pipe takes them in one piece."""
        is_over = False
        while not is_over:
            if self._waiting.empty():
                time.sleep(PAUSE_SECONDS)
            texts = [self._waiting.get()]
            while sum(map(len, filter(None, texts))) < select.PIPE_BUF // 2 and not self._waiting.empty():
                texts.append(self._waiting.get())
            is_over = None in texts
            self._write("".join(filter(None, texts)))

    def _write(self, text: str) -> None:
        data = text.encode(errors="backslashreplace")
        try:
            while data:
                data = data[os.write(self._descriptor, data) :]
        except OSError:
            self.dropped += data.count(b"\n")


class Ended(NamedTuple):
    """A prediction or comparison that ended. `phases` has the seconds of each phase that it reached."""

    request_id: str
    variant: str
    outcome: str
    images: int
    seconds: float
    phases: dict[str, float]

    @property
    def status(self) -> int:
        """The status of the answer."""
        return 200 if self.outcome == "ok" else REASONS[self.outcome].status


class JsonFormatter(logging.Formatter):
    """A formatter to JSON: `time` (Unix seconds), `level`, `logger`, `message`, and `exception` if there is one."""

    def format(self, record: logging.LogRecord) -> str:
        """Return the record as one line of JSON."""
        line = {
            "time": round(record.created, 6),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line)


def configure(level: str) -> None:
    """Send logs of this level and above to stderr, through an Output. A process calls this once, at its start.

    The Output takes the place of `sys.stderr`, so that warnings and tracebacks go through it, too.
    """
    output = Output(STDERR)
    atexit.register(output.finish)
    sys.stderr = output
    handler = logging.StreamHandler(output)
    handler.setFormatter(logging.Formatter(READABLE) if output.isatty() else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])


def dropped_lines() -> int:
    """Return the number of log lines that this process could not write."""
    return sys.stderr.dropped if isinstance(sys.stderr, Output) else 0


class RequestLog:
    """The log of predictions and comparisons: one line each, if the level is `info` or `debug`.

    String formatting makes the line, because a record of the logging module would cost more than all metrics
    (benchmarks/measuring.py). No field needs escaping: ids are checked, and all other words are the service's own.
    """

    def __init__(self, variants: Iterable[str]) -> None:
        self._variants = frozenset((*variants, COMPARE))
        self._logger = logging.getLogger(__name__)
        self._line = readable_line if sys.stderr.isatty() else json_line

    def __call__(
        self, request_id: str, variant: str, outcome: str, images: int, seconds: float, phases: dict[str, float]
    ) -> None:
        """Write the line of a request that ended."""
        if self._logger.isEnabledFor(logging.INFO):
            known = variant if variant in self._variants else UNKNOWN
            sys.stderr.write(self._line(Ended(request_id, known, outcome, images, seconds, phases)))


@cache
def _template(names: tuple[str, ...]) -> str:
    return ", ".join(f'"{name}": %.6f' for name in names)


def json_line(ended: Ended) -> str:
    """Return the line as a JSON object."""
    phases = _template(tuple(ended.phases)) % tuple(ended.phases.values())
    return (
        f'{{"time": {time.time():.6f}, "level": "info", "logger": "service.requests", "message": "prediction", '
        f'"request_id": "{ended.request_id}", "variant": "{ended.variant}", "outcome": "{ended.outcome}", '
        f'"status": {ended.status}, "images": {ended.images}, "seconds": {ended.seconds:.6f}, '
        f'"phases": {{{phases}}}}}\n'
    )


def readable_line(ended: Ended) -> str:
    """Return the line for a terminal, with times in milliseconds."""
    phases = " ".join([f"{name}={seconds * 1000:.2f}" for name, seconds in ended.phases.items()])
    return (
        f"INFO {ended.variant} {ended.status} {ended.outcome} images={ended.images} ms={ended.seconds * 1000:.2f} "
        f"{phases} id={ended.request_id}\n"
    )

"""Logs on stderr: readable lines on a terminal, JSON objects elsewhere. Each prediction has one line."""

import json
import logging
import sys
import time
from collections.abc import Iterable
from contextlib import suppress
from functools import cache
from typing import NamedTuple

from service.errors import REASONS

READABLE = "%(levelname)s %(name)s: %(message)s"
UNKNOWN = "unknown"
"""The name for every variant that does not exist: a path must not get into a log, a span or a label."""
COMPARE = "compare"
"""The name for the variants of a comparison, which asks all of them."""


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
    """Send logs of this level and above to stderr. A process calls this once, at its start."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter(READABLE) if sys.stderr.isatty() else JsonFormatter())
    logging.basicConfig(level=level.upper(), handlers=[handler])


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
            with suppress(OSError, ValueError):  # a full disk or a lost pipe may cost lines, but no answer
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

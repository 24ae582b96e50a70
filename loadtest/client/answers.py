"""The record that an answer leaves, with the same words for like errors."""

import json
import math
from collections.abc import Callable
from typing import Any, NamedTuple

from gevent import Timeout

from loadtest.client.connection import Answer
from loadtest.records import Request

UNREADABLE = "200 with an answer that cannot be read"
"""The error of an answer whose content is not what was asked for."""


def lost(intended: float, now: float, error: str) -> Request:
    """Return the record of a request that was not sent, or whose answer nobody waits for any more."""
    return _failed(-1, intended, now, now, 0, error)


def _failed(sequence: int, intended: float, start: float, end: float, status: int, error: str) -> Request:
    return Request(sequence, intended, start, end, status, error, (), math.nan, math.nan, math.nan, math.nan)


class Said(NamedTuple):
    """The content of a good answer: a class index per image, and what the service states about the request.

    Times are in seconds. NaN stands for what the service does not state.
    """

    classes: tuple[int, ...]
    batch_size: float = math.nan
    total: float = math.nan
    queue: float = math.nan
    inference: float = math.nan


def predictions(answer: Answer) -> Said:
    """Return the content of an answer of `POST /predict/{variant}`. A wrong one raises what `record` expects."""
    stated = json.loads(answer.content)
    timing = stated.get("timing") or {}
    return Said(
        tuple(int(prediction["class_index"]) for prediction in stated["predictions"]),
        _number(stated.get("batch_size")),
        _number(timing.get("total_seconds")),
        _number(timing.get("queue_seconds")),
        _number(timing.get("inference_seconds")),
    )


def record(sequence: int, intended: float, answer: Answer, read: Callable[[Answer], Said] = predictions) -> Request:
    """Return the record of a request that got this answer, whose content `read` returns."""
    start, end, status = answer.start, answer.end, answer.status
    if status != 200 or answer.failure:
        return _failed(sequence, intended, start, end, status, _error(answer))
    try:
        said = read(answer)
    except (ValueError, KeyError, IndexError, TypeError, AttributeError, OverflowError):
        return _failed(sequence, intended, start, end, status, UNREADABLE)
    return Request(sequence, intended, start, end, status, "", *said)


def _number(stated: Any) -> float:
    """Return a number that an answer states; NaN if it states none or an infinite one."""
    number = math.nan if stated is None else float(stated)
    return number if math.isfinite(number) else math.nan


def _error(answer: Answer) -> str:
    """Return words that are the same for like errors: status and title of the problem, or why there is no answer.

    With a failure, a status of 200 belongs to an answer whose body broke off.
    """
    if isinstance(answer.failure, TimeoutError | Timeout):
        return "timeout"
    if answer.status in (0, 200):
        return f"no answer: {type(answer.failure).__name__}"
    try:
        return f"{answer.status} {json.loads(answer.content)['title']}"
    except (ValueError, KeyError, TypeError):
        return f"{answer.status}"

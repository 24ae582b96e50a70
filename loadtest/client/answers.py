"""The record that an answer leaves, with the same words for like errors."""

import json
import math
from typing import Any

from gevent import Timeout

from loadtest.client.connection import Answer
from loadtest.records import Request


def lost(intended: float, now: float, error: str) -> Request:
    """Return the record of a request that was not sent, or whose answer nobody waits for any more."""
    return _failed(-1, intended, now, now, 0, error)


def _failed(sequence: int, intended: float, start: float, end: float, status: int, error: str) -> Request:
    return Request(sequence, intended, start, end, status, error, (), math.nan, math.nan, math.nan, math.nan)


def record(sequence: int, intended: float, answer: Answer) -> Request:
    """Return the record of a request that got this answer."""
    start, end, status, content, failure = answer
    if status != 200 or failure:
        return _failed(sequence, intended, start, end, status, _error(answer))
    try:
        stated = json.loads(content)
        timing = stated.get("timing") or {}
        return Request(
            sequence,
            intended,
            start,
            end,
            status,
            error="",
            answer=tuple(int(prediction["class_index"]) for prediction in stated["predictions"]),
            batch_size=_number(stated.get("batch_size")),
            server_total=_number(timing.get("total_seconds")),
            server_queue=_number(timing.get("queue_seconds")),
            server_inference=_number(timing.get("inference_seconds")),
        )
    except (ValueError, KeyError, TypeError, AttributeError, OverflowError):
        return _failed(sequence, intended, start, end, status, "200 with an answer that cannot be read")


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

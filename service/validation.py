"""Pydantic's validation errors as one line for a person."""

from pydantic import ValidationError

MOST_MISTAKES = 100
"""The largest number of mistakes that are looked at: pydantic builds an object for each, and a body can hold many."""


def first_mistake(error: ValidationError) -> str:
    """Return the place and the message of the first mistake, without the value that was sent.

    Above MOST_MISTAKES the line gives their number only.
    """
    if error.error_count() > MOST_MISTAKES:
        return f"{error.error_count()} mistakes"
    first = error.errors(include_url=False, include_context=False, include_input=False)[0]
    return ": ".join(filter(None, (".".join(map(str, first["loc"])), first["msg"])))

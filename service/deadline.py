"""Deadlines, and the errors that work ends in when they pass."""

import time
from dataclasses import dataclass

from service.errors import ServiceError

CLIENTS = "client_deadline"


@dataclass(frozen=True, slots=True)
class Deadline:
    """A point in time. Past it, work fails with the error `word` and the detail '<what> within N s'."""

    began: float
    """A reading of `time.perf_counter()`."""
    seconds: float
    """From `began` to the deadline."""
    word: str = "deadline"
    what: str = "no answer"

    @property
    def left(self) -> float:
        """Seconds until the deadline; 0 once it has passed."""
        return max(0.0, self.began + self.seconds - time.perf_counter())

    def or_sooner(self, other: "Deadline") -> "Deadline":
        """Return the sooner of the two deadlines."""
        return other if other.began + other.seconds < self.began + self.seconds else self

    def or_clients(self, seconds: float) -> "Deadline":
        """Return the sooner of this deadline and the client's, which counts from the same beginning."""
        return self.or_sooner(Deadline(self.began, seconds, CLIENTS))

    def error(self) -> ServiceError:
        """Return the error that work ends in when this deadline passes."""
        return ServiceError(self.word, f"{self.what} within {self.seconds:g} s")

    def check(self) -> None:
        """Raise this deadline's error if it has passed."""
        if not self.left:
            raise self.error()

    def __enter__(self) -> None:
        """Raise this deadline's error in place of a TimeoutError or a `deadline` error from the block.

        The clock is not read again: uvloop's timers fire up to 1 ms early.
        """

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            return
        if isinstance(error, TimeoutError) or (isinstance(error, ServiceError) and error.reason.word == "deadline"):
            raise self.error() from None

"""Until when something must be done, and the error that it ends in otherwise."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from service.errors import ServiceError

CLIENTS = "client_deadline"


@dataclass(frozen=True, slots=True)
class Deadline:
    """`seconds` after `began`, a reading of `time.perf_counter()`; past it there is the error `word`: no `what`."""

    began: float
    seconds: float
    word: str = "deadline"
    what: str = "no answer"

    @property
    def left(self) -> float:
        """Seconds; 0 once it has passed."""
        return max(0.0, self.began + self.seconds - time.perf_counter())

    def or_sooner(self, other: "Deadline") -> "Deadline":
        """This one, or the other where that is sooner."""
        return other if other.began + other.seconds < self.began + self.seconds else self

    def or_clients(self, seconds: float) -> "Deadline":
        """This one, or what the client asked for, from the same beginning, where that is sooner."""
        return self.or_sooner(Deadline(self.began, seconds, CLIENTS))

    def error(self) -> ServiceError:
        return ServiceError(self.word, f"{self.what} within {self.seconds:g} s")

    def check(self) -> None:
        """Raises ServiceError: its own, once it has passed."""
        if not self.left:
            raise self.error()

    @contextmanager
    def kept(self) -> Iterator[None]:
        """What gives up in here for want of time (TimeoutError, `deadline`) gives up with this deadline's error.

        Whether it has passed is not asked: uvloop's timers are up to 1 ms early.
        """
        try:
            yield
        except TimeoutError:
            raise self.error() from None
        except ServiceError as error:
            if error.reason.word != "deadline":
                raise
            raise self.error() from None

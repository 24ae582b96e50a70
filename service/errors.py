"""The one table of errors: reason -> status -> metric label."""

from dataclasses import dataclass
from http import HTTPStatus


@dataclass(frozen=True)
class Reason:
    """A row of the table."""

    word: str
    """The outcome label in the metrics, and the end of the problem's `type`."""
    status: int
    title: str
    retry_after: int | None = None
    """The Retry-After header in seconds, unless the error itself knows better. None: the answer has no such header."""


REASONS = {
    row.word: row
    for row in (
        Reason("malformed", 400, "The request could not be read"),
        Reason("not_an_image", 400, "The body is not a PNG, JPEG or WebP image"),
        Reason("unauthorized", 401, "An API key is needed"),
        Reason("cross_site", 403, "A page of another site may not use this service"),
        Reason("unknown_variant", 404, "There is no such variant"),
        Reason("too_slow", 408, "The request arrived too slowly"),
        Reason("too_large", 413, "The request is too large"),
        Reason("unsupported_type", 415, "The content type is not supported"),
        Reason("foreign_host", 421, "The service does not have this name"),
        Reason("unacceptable", 422, "The request is well-formed but not acceptable"),
        Reason("client_closed", 499, "The client went away"),
        Reason("internal", 500, "The service has a bug"),
        Reason("non_finite", 500, "The network gave logits that are not finite"),
        Reason("overloaded", 503, "Too many images are waiting", retry_after=1),
        Reason("starting", 503, "The variant is starting", retry_after=5),
        Reason("worker_lost", 503, "The worker died while it held this request", retry_after=1),
        Reason("device_lost", 503, "The GPU failed while it held this request", retry_after=1),
        Reason("out_of_memory", 503, "The batch did not fit into the device's memory", retry_after=1),
        Reason("unavailable", 503, "The variant cannot run on this machine", retry_after=3600),
        Reason("failed", 503, "The variant failed to start", retry_after=60),
        Reason("shutting_down", 503, "The service is shutting down", retry_after=5),
        Reason("deadline", 504, "The deadline of the request passed"),
        Reason("client_deadline", 504, "The deadline that the client asked for passed"),
    )
}


class ServiceError(Exception):
    """The error of the table that a request ends in; `detail` says what was expected or what to do.

    `retry_after` is the Retry-After header in seconds, the table's unless another is given. None: there is no header.
    """

    def __init__(self, word: str, detail: str, retry_after: int | None = None) -> None:
        super().__init__(detail)
        self.reason = REASONS[word]
        self.detail = detail
        self.retry_after = self.reason.retry_after if retry_after is None else retry_after

    def __reduce__(self) -> tuple[type["ServiceError"], tuple[str, str, int | None]]:
        """Return what a pickle makes the same error of, in another process."""
        return type(self), (self.reason.word, self.detail, self.retry_after)


def problem(error: ServiceError, request_id: str) -> dict[str, str | int]:
    """Return the `application/problem+json` body (RFC 9457) of an error of the table."""
    return {
        "type": f"urn:precision-service:problem:{error.reason.word}",
        "title": error.reason.title,
        "status": error.reason.status,
        "detail": error.detail,
        "request_id": request_id,
    }


def http_error(status: int, detail: str, request_id: str) -> dict[str, str | int]:
    """Return the same body for an error outside the table, such as an unknown path (404) or method (405)."""
    return {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "request_id": request_id,
    }

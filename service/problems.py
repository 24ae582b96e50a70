"""Errors as HTTP answers: a problem+json for each, with the headers that say what to do."""

import asyncio
import logging
import os
import re

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from service.errors import ServiceError, problem

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")
CLOSING = ("too_slow", "shutting_down")
"""Errors after which the connection is closed: the rest of the body is not waited for."""
PROBLEM = "application/problem+json"


def request_id_of(request: Request) -> str:
    """Return the request's X-Request-ID, see `request_id_from`."""
    return request_id_from(request.headers.get("x-request-id", ""))


def request_id_from(given: str) -> str:
    """Return the client's X-Request-ID if it is harmless (1 to 128 of A-Z a-z 0-9 . _ : -), else a new one."""
    return given if REQUEST_ID.fullmatch(given) else os.urandom(16).hex()


def error_response(request: Request, error: ServiceError, request_id: str) -> Response:
    """Return the answer to a request that ends in an error of the table."""
    headers = {"X-Request-ID": request_id}
    if error.retry_after is not None:
        headers["Retry-After"] = str(error.retry_after)
    if error.reason.word in CLOSING:
        headers["Connection"] = "close"
    return problem_response(request, problem(error, request_id), headers)


def problem_response(request: Request, problem: dict[str, str | int], headers: dict[str, str]) -> Response:
    """Return a problem+json, or, under `/v2`, the error document of the Open Inference Protocol."""
    is_v2 = request.scope["path"].split("/")[1] == "v2"
    body = {"error": problem["detail"]} if is_v2 else problem
    return JSONResponse(body, int(problem["status"]), headers, None if is_v2 else PROBLEM)


def as_service_error(error: BaseException) -> ServiceError:
    """Return the error of the table for whatever was raised. A bug is logged and becomes `internal`."""
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, asyncio.CancelledError):
        return ServiceError("shutting_down", "the service is shutting down; try again")
    logger.error("a request met a bug", exc_info=error)
    return ServiceError("internal", "the service met an unexpected error; it was logged")

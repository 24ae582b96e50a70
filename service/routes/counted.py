"""Every prediction and comparison gets a request id, a problem+json when it fails, and is counted and logged once."""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from fastapi.exceptions import RequestValidationError
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field, ValidationError
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.types import Receive, Scope, Send

from models.cifar10 import CLASSES
from service.errors import ServiceError, problem
from service.logs import COMPARE, UNKNOWN

logger = logging.getLogger(__name__)

REQUEST_ID = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id_of(request: Request) -> str:
    """The client's X-Request-ID where it is harmless (1 to 128 of A-Z a-z 0-9 . _ : -), else a new one."""
    given = request.headers.get("x-request-id", "")
    return given if REQUEST_ID.fullmatch(given) else uuid.uuid4().hex


def server_timing(seconds: Mapping[str, float]) -> str:
    """The header, which a browser's network panel shows."""
    return ", ".join([f"{name};dur={value * 1000:.3f}" for name, value in seconds.items()])


def error_response(request: Request, error: ServiceError, request_id: str) -> Response:
    headers = {"X-Request-ID": request_id}
    if error.reason.retry_after is not None:
        headers["Retry-After"] = str(error.reason.retry_after)
    if error.reason.word in ("too_slow", "shutting_down"):
        headers["Connection"] = "close"  # what is still to come of the body is not waited for
    return problem_response(request, problem(error, request_id), headers)


def problem_response(request: Request, problem: dict[str, str | int], headers: dict[str, str]) -> Response:
    """A problem+json, or, under `/v2`, what the Open Inference Protocol makes of it."""
    is_v2 = request.url.path.split("/")[1] == "v2"
    body = {"error": problem["detail"]} if is_v2 else problem
    return JSONResponse(body, int(problem["status"]), headers, None if is_v2 else "application/problem+json")


class PredictQuery(BaseModel):
    """The query parameters of a prediction."""

    top_k: int = Field(1, ge=1, le=len(CLASSES), description="how many classes to name per image")
    logits: bool = Field(False, description="give the ten logits of each image, too")

    @classmethod
    def of(cls, request: Request) -> "PredictQuery":
        """The query of a request.

        Raises:
            ServiceError: `unacceptable`.
        """
        try:
            return cls.model_validate(dict(request.query_params)) if request.url.query else cls()
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            raise ServiceError("unacceptable", f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


Endpoint = Callable[[Request, str], Awaitable[Response]]
Queried = Callable[[Request, str, PredictQuery], Awaitable[Response]]


def queried(endpoint: Queried) -> Endpoint:
    """The endpoint, given the query of its request, too."""
    return lambda request, variant: endpoint(request, variant, PredictQuery.of(request))


async def counted(endpoint: Endpoint, request: Request, variant: str) -> Response:
    """Call the endpoint; the prediction ends in exactly one outcome of the error table, or `ok`, and counts once."""
    metrics = request.app.state.metrics
    name = variant if variant in request.app.state.pools else UNKNOWN

    def count(outcome: str, seconds: float) -> None:
        metrics.ended(name, outcome, seconds)
        if trace := request.app.state.trace:
            trace(request, name, outcome, seconds)

    metrics.started(name)
    return await _answered(lambda: endpoint(request, variant), request, name, count)


async def compared(endpoint: Callable[[Request], Awaitable[Response]], request: Request) -> Response:
    """Call the endpoint; a comparison ends as a prediction does, but has a count of its own and no span."""
    metrics = request.app.state.metrics
    return await _answered(lambda: endpoint(request), request, COMPARE, lambda outcome, _: metrics.compared(outcome))


async def _answered(
    answer: Callable[[], Awaitable[Response]], request: Request, name: str, count: Callable[[str, float], None]
) -> Response:
    """The answer, or the error that it ends in; counted, and logged as `name`."""
    began = time.perf_counter()
    request.state.began = began
    request.state.request_id = request_id_of(request)
    request.state.images, request.state.phases, request.state.results = 0, {}, []
    outcome = "internal"
    try:
        response = await answer()
        outcome = "ok"
        response.headers["X-Request-ID"] = request.state.request_id
        return response
    except ENDINGS as error:
        failure = as_service_error(error)
        outcome = failure.reason.word
        response = error_response(request, failure, request.state.request_id)
        response.headers["Server-Timing"] = server_timing(request.state.phases | {"total": time.perf_counter() - began})
        return response
    finally:
        seconds = time.perf_counter() - began
        count(outcome, seconds)
        state = request.state
        request.app.state.log(state.request_id, name, outcome, state.images, seconds, state.phases)


ENDINGS = (Exception, asyncio.CancelledError)
"""Whatever happens, the client gets an answer. Only uvicorn cancels a request, when the time to drain is over."""


class CountedRoute(APIRoute):
    """A route `/.../{variant}` whose endpoint is `counted`; FastAPI only describes it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = queried(self.endpoint)

        async def handler(request: Request) -> Response:
            return await counted(endpoint, request, request.path_params["variant"])

        return handler


class ComparedRoute(APIRoute):
    """A route whose endpoint is `compared`; FastAPI only describes it."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        endpoint = self.endpoint

        async def handler(request: Request) -> Response:
            return await compared(lambda request: endpoint(request, PredictQuery.of(request)), request)

        return handler


class Front:
    """ASGI: predictions go straight to their endpoint, everything else to FastAPI.

    FastAPI's middleware, routing and dependency resolution cost more than an INT8 forward pass (benchmarks/hop.py).
    """

    def __init__(self, app: Any, prefix: str, endpoint: Queried) -> None:
        self.app = app
        self.prefix = prefix
        self.endpoint = queried(endpoint)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(self.prefix):
            variant = scope["path"].removeprefix(self.prefix)
            if variant and "/" not in variant:
                scope["app"] = self.app
                response = await counted(self.endpoint, Request(scope, receive, send), variant)
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)


def as_service_error(error: BaseException) -> ServiceError:
    if isinstance(error, ServiceError):
        return error
    if isinstance(error, asyncio.CancelledError):
        return ServiceError("shutting_down", "the service is shutting down; try again")
    if isinstance(error, RequestValidationError):
        first = error.errors()[0]
        return ServiceError("unacceptable", f"{'.'.join(map(str, first['loc']))}: {first['msg']}")
    logger.error("a request met a bug", exc_info=error)
    return ServiceError("internal", "the service met an unexpected error; it was logged")

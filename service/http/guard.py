"""The check of API keys. It reads the headers of a request only, before anything else is done with it."""

import re
from collections.abc import Iterable

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ServiceError
from service.http.keys import Keys
from service.prediction import compared, predicted, service_of
from service.problems import error_response, request_id_of
from service.v2.names import variant_of

HEALTH = ("/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
"""The paths that need no key, because an orchestrator has none."""
PREDICTION = re.compile(r"/predict/([^/]+)|/v2/models/([^/]+)(?:/versions/[^/]+)?/infer")
"""The paths of predictions: a variant, or a model under `/v2`."""
COMPARISON = "/compare"


class Guard:
    """ASGI: a request without a key gets 401, except on open paths. Refused predictions and comparisons are counted."""

    def __init__(self, front: ASGIApp, app: FastAPI, keys: Keys, open_paths: Iterable[str]) -> None:
        self.front = front
        self.app = app
        self.keys = keys
        self.open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it."""
        is_request = scope["type"] in ("http", "websocket")
        if not is_request or scope["path"] in self.open_paths or self.keys.allow(Headers(scope=scope)):
            await self.front(scope, receive, send)
        elif scope["type"] == "http":
            scope["app"] = self.app
            response = await refusal(Request(scope, receive), _unauthorized())
            response.headers["WWW-Authenticate"] = "Bearer"
            await response(scope, receive, send)


async def refusal(request: Request, error: ServiceError) -> Response:
    """Return the answer to a request that is refused before any route; predictions and comparisons are counted."""

    async def refuse(_: object) -> Response:
        raise error

    path, is_post = request.url.path, request.method == "POST"
    if is_post and (prediction := PREDICTION.fullmatch(path)):
        variant = prediction[1] or variant_of(service_of(request), prediction[2])
        return await predicted(request, variant, refuse)
    if is_post and path == COMPARISON:
        return await compared(request, refuse)
    return error_response(request, error, request_id_of(request))


def _unauthorized() -> ServiceError:
    return ServiceError("unauthorized", "expected an API key: Authorization: Bearer KEY, or X-API-Key: KEY")

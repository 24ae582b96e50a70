"""Who may come in, decided before anything of a request but its headers is read."""

import re
from collections.abc import Iterable

from fastapi import FastAPI
from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from service.errors import ServiceError
from service.http.keys import Keys
from service.prediction import compared, predicted
from service.problems import error_response, request_id_of

HEALTH = ("/health", "/health/live", "/health/ready", "/v2/health/live", "/v2/health/ready")
"""What an orchestrator asks, which knows no key."""
PREDICTION = re.compile(r"/predict/([^/]+)|/v2/models/resnet18-([^/]+)(?:/versions/[^/]+)?/infer")
COMPARISON = "/compare"


class Guard:
    """ASGI: requests without a key get 401, but for the open paths. What is counted counts when refused, too."""

    def __init__(self, front: ASGIApp, app: FastAPI, keys: Keys, open_paths: Iterable[str]) -> None:
        self.front = front
        self.app = app
        self.keys = keys
        self.open_paths = frozenset(open_paths)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        is_request = scope["type"] in ("http", "websocket")
        if not is_request or scope["path"] in self.open_paths or self.keys.allow(Headers(scope=scope)):
            await self.front(scope, receive, send)
        elif scope["type"] == "http":
            scope["app"] = self.app
            response = await self._refuse(Request(scope, receive))
            response.headers["WWW-Authenticate"] = "Bearer"
            await response(scope, receive, send)

    async def _refuse(self, request: Request) -> Response:
        path, is_post = request.url.path, request.method == "POST"
        if is_post and (prediction := PREDICTION.fullmatch(path)):
            return await predicted(request, prediction[1] or prediction[2], _raise)
        if is_post and path == COMPARISON:
            return await compared(request, _raise)
        return error_response(request, _unauthorized(), request_id_of(request))


async def _raise(*_: object) -> Response:
    raise _unauthorized()


def _unauthorized() -> ServiceError:
    return ServiceError("unauthorized", "expected an API key: Authorization: Bearer KEY, or X-API-Key: KEY")

"""The short cut of `POST /predict/{variant}` past FastAPI."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from service.refusals import Refusals


class Front:
    """ASGI: predictions go straight to their endpoint, everything else to FastAPI, HEAD as GET.

    uvicorn sends no body in answer to HEAD.

    FastAPI's middleware, routing and dependency resolution take 340 to 520 us of processor time for each request. On
    int8 the short cut answered 1.10 [1.06, 1.13] times as many requests at 32 clients, 1.04 [0.91, 1.19] at 8 and 1.04
    [0.99, 1.32] at 1 (`python -m benchmarks.bypasses`, n = 14 rounds of 4 s, 95 % bootstrap intervals, one PNG each; 2
    cores of an AMD EPYC without VNNI under other load, OpenVINO 2026.4.1, FastAPI 0.165.0, uvicorn 0.54.0).
    """

    def __init__(
        self, app: Any, prefix: str, endpoint: Callable[[Request, str], Awaitable[Response]], refusals: Refusals
    ) -> None:
        self.app = app
        self.refusals = refusals
        self.prefix = prefix
        self.endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(self.prefix):
            variant = scope["path"].removeprefix(self.prefix)
            if await self.refusals.refuse(scope, send, variant):
                return
            if variant and "/" not in variant:
                scope["app"] = self.app
                response = await self.endpoint(Request(scope, receive, send), variant)
                await response(scope, receive, send)
                return
        is_head = scope["type"] == "http" and scope["method"] == "HEAD"
        await self.app({**scope, "method": "GET"} if is_head else scope, receive, send)

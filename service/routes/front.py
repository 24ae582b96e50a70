"""The short cut of `POST /predict/{variant}` past FastAPI."""

from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import Receive, Scope, Send


class Front:
    """ASGI: predictions go straight to their endpoint, everything else to FastAPI.

    FastAPI's middleware, routing and dependency resolution cost more than an INT8 forward pass (benchmarks/hop.py).
    """

    def __init__(self, app: Any, prefix: str, endpoint: Callable[[Request, str], Awaitable[Response]]) -> None:
        self.app = app
        self.prefix = prefix
        self.endpoint = endpoint

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope["method"] == "POST" and scope["path"].startswith(self.prefix):
            variant = scope["path"].removeprefix(self.prefix)
            if variant and "/" not in variant:
                scope["app"] = self.app
                response = await self.endpoint(Request(scope, receive, send), variant)
                await response(scope, receive, send)
                return
        await self.app(scope, receive, send)

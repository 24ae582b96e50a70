"""The path under which a proxy shows the service: `--root-path`."""

from starlette.types import ASGIApp, Receive, Scope, Send


class Prefix:
    """ASGI: paths that begin with the prefix lose it. Others stay: some proxies remove it, and probes have none."""

    def __init__(self, front: ASGIApp, prefix: str) -> None:
        self.front = front
        self.prefix = prefix

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on."""
        path: str = scope.get("path", "")
        if path == self.prefix or path.startswith(f"{self.prefix}/"):
            scope["path"] = path.removeprefix(self.prefix) or "/"
        await self.front(scope, receive, send)

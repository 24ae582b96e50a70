"""Large answers in slices, so that a client that does not read them keeps one slice in memory and not the whole."""

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

SLICE_BYTES = 65_536


class SlicedResponse(Response):
    """A response that sends its body in slices. uvicorn waits before each until the client made room for it."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send the head, then every slice."""
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        for first in range(0, len(self.body), SLICE_BYTES):
            part = bytes(self.body[first : first + SLICE_BYTES])
            await send({"type": "http.response.body", "body": part, "more_body": True})
        await send({"type": "http.response.body", "body": b"", "more_body": False})

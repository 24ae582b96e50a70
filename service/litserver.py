"""The server: a LitServer whose private methods are overridden here, and nowhere else.

LitServe is pinned to one version, and a contract test checks every part of it that is used: the LitServer, its FastAPI
app and a LitAPI for each variant. The worker processes, the Manager process and its queues, the forked HTTP processes,
the monitor and the signal handling are replaced (docs/decisions/0001-one-http-process.md gives the reasons).
"""

import asyncio
import logging
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import litserve
import uvicorn
from fastapi import FastAPI
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp

from service.decoders import Decoders
from service.http.connections import LimitedServer
from service.http.slow_clients import limited_to
from service.workers.api import PrecisionAPI
from service.workers.launch import Plan
from service.workers.pool import Observer, Pool, Unobserved

logger = logging.getLogger(__name__)

BACKGROUND = "shadow"
"""The name, in the log and in the memory metrics, of the pool that no route leads to."""
GRACE_SECONDS = 1.0
"""The time between the 408 for a request that arrives too slowly and the end of its connection."""


class LitVariant(litserve.LitAPI):  # type: ignore[misc]
    """A variant as LitServe wants to see it."""

    def __init__(self, api: PrecisionAPI, path: str) -> None:
        super().__init__(max_batch_size=api.max_batch_size, api_path=path)
        self.api = api

    def setup(self, device: str) -> None:
        """Load the engine, see PrecisionAPI."""
        self.api.setup(device)

    def predict(self, x: Any, **kwargs: Any) -> Any:
        """Run a batch, see PrecisionAPI."""
        return self.api.predict(x)


class PrecisionServer(litserve.LitServer):  # type: ignore[misc]
    """A LitServer with one HTTP process (this one) and supervised worker processes.

    `pools` maps each variant's name to its Pool. `background` is the pool of the API that no route leads to, if there
    is one: its one worker gets only processor time that nobody else wants. `front` is the ASGI app that is served, and
    `protocol` makes the protocol of each connection.
    """

    def __init__(self, plan: Plan, observer: Observer) -> None:
        settings = plan.settings
        served = [LitVariant(api, f"/predict/{name}") for name, api in plan.apis.items()]
        super().__init__(served, accelerator="cpu", timeout=settings.request_timeout)
        self.settings = settings
        self.app.user_middleware = [m for m in self.app.user_middleware if m.cls is not GZipMiddleware]
        self.front: ASGIApp = self.app
        self.protocol = limited_to(settings.receive_timeout + GRACE_SECONDS)
        self.pools = {name: Pool(name, settings, spawns, observer) for name, spawns in plan.launchers.items()}
        self.background: Pool | None = None
        if plan.background:
            api, launcher = plan.background
            self.background = Pool(BACKGROUND, api.settings, [launcher], Unobserved())
        self.decoders = Decoders(settings)
        self._http: LimitedServer | None = None

    @property
    def is_stopping(self) -> bool:
        """True from the signal to stop on."""
        return self._http is not None and self._http.should_exit

    def _register_internal_endpoints(self) -> None:
        """Register nothing: this service has its own routes in place of LitServe's `/`, `/health` and `/info`."""

    def _register_api_endpoints(self, lit_api: Any, request_type: Any, response_type: Any) -> None:
        """Register nothing: one route serves all variants (service.routes.predict)."""

    @asynccontextmanager
    async def lifespan(self, app: FastAPI) -> AsyncIterator[None]:
        """Supervise every pool while the app runs. Afterwards no worker is left."""
        pools = [*self.pools.values(), *([self.background] if self.background else [])]
        tasks = [asyncio.create_task(pool.supervise(), name=pool.variant) for pool in pools]
        tasks.append(asyncio.create_task(self.decoders.start(), name="decoders"))
        for task in tasks:
            task.add_done_callback(_log_failure)
        try:
            yield
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            await self.decoders.stop()

    def run(self, sock: socket.socket) -> None:
        """Serve on a bound socket until SIGTERM, SIGINT or SIGHUP, then stop: delay, drain, return."""
        config = uvicorn.Config(
            self.front,
            http=self.protocol,
            ws="none",
            log_level=self.settings.log_level,
            log_config=None,
            access_log=False,
            server_header=False,
            timeout_keep_alive=self.settings.keep_alive,
            timeout_graceful_shutdown=self.settings.drain_timeout,
            ssl_certfile=self.settings.ssl_certfile,
            ssl_keyfile=self.settings.ssl_keyfile,
        )
        # uvicorn raises the signal again after the last request. Without SIG_IGN an orderly stop would not exit with 0.
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)
        patience = self.settings.receive_timeout + GRACE_SECONDS
        server = LimitedServer(config, self.settings.max_connections, patience, self.settings.shutdown_delay)
        self._http = server
        if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # it is ignored under nohup
            signal.signal(signal.SIGHUP, server.handle_exit)
        server.run(sockets=[sock])


def _log_failure(task: asyncio.Task[None]) -> None:
    if not task.cancelled() and (error := task.exception()):
        logger.error("the supervisor of %s ended, and its workers with it", task.get_name(), exc_info=error)

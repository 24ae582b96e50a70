"""The server: a LitServer whose private methods are overridden here, and nowhere else.

LitServe is pinned to one version, and a contract test checks every part of it that is used. The LitAPI and its `setup`
in a spawned worker (`inference_worker`), the LitLoop and the FastAPI app are LitServe's. The Manager process and its
queues, the forked HTTP processes, the monitor and the signal handling are replaced
(docs/decisions/0001-one-http-process.md gives the reasons).
"""

import asyncio
import logging
import multiprocessing
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any

import litserve
import uvicorn
from fastapi import FastAPI
from litserve.loops import inference_worker
from starlette.middleware.gzip import GZipMiddleware
from starlette.types import ASGIApp

from common import machine
from models import nvml
from models.variants import Variant
from service.decoders import Decoders
from service.http.connections import LimitedServer
from service.http.slow_clients import limited_to
from service.settings import Settings
from service.workers.api import PrecisionAPI
from service.workers.pool import Observer, Pool, Unobserved
from service.workers.supervisor import Spawn, WorkerDied

logger = logging.getLogger(__name__)

BACKGROUND = "shadow"
"""The name, in the log and in the memory metrics, of the pool that no route leads to."""
NICENESS = 5
"""The steps by which a CPU worker's priority is below that of the HTTP process.

All requests of all variants go through the HTTP process, which needs less than one core. At equal priority, the threads
of two busy workers leave it a third of a core of two: then every request waits for it.
"""
GRACE_SECONDS = 1.0
"""The time between the 408 for a request that arrives too slowly and the end of its connection."""


class PrecisionServer(litserve.LitServer):  # type: ignore[misc]
    """A LitServer with one HTTP process (this one) and supervised worker processes.

    `pools` maps each variant's name to its Pool. `background` is the pool of the API that no route leads to, if there
    is one: its one worker gets only processor time that nobody else wants. `front` is the ASGI app that is served, and
    `protocol` makes the protocol of each connection.
    """

    def __init__(
        self, apis: list[PrecisionAPI], settings: Settings, observer: Observer, background: PrecisionAPI | None = None
    ) -> None:
        if background:
            background.api_path = f"/{BACKGROUND}"  # LitServe demands a path that no other API has
        served = [*apis, background] if background else apis
        super().__init__(served, accelerator="cpu", timeout=settings.request_timeout)
        self.settings = settings
        self.app.user_middleware = [m for m in self.app.user_middleware if m.cls is not GZipMiddleware]
        self.front: ASGIApp = self.app
        self.protocol = limited_to(settings.receive_timeout + GRACE_SECONDS)
        self.pools = {api.variant.name: self._pool(api, observer) for api in apis}
        self.background = self._background_pool(background) if background else None
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

    def _pool(self, api: PrecisionAPI, observer: Observer) -> Pool:
        places = devices(api.variant, self.settings, nvml.count())
        spawns = [self._spawner(api, device, index) for index, device in enumerate(places)]
        return Pool(api.variant.name, self.settings, spawns, observer)

    def _background_pool(self, api: PrecisionAPI) -> Pool:
        spawn = self._spawner(api, devices(api.variant, api.settings, nvml.count())[0], 0)

        def spawn_in_background(link: socket.socket) -> multiprocessing.process.BaseProcess:
            process = spawn(link)
            assert process.pid is not None
            try:
                machine.yield_to_others(process.pid)
            except OSError as error:
                process.kill()
                process.join()
                raise WorkerDied("died", f"the shadow's worker cannot be put in the background: {error}") from error
            return process

        return Pool(BACKGROUND, api.settings, [spawn_in_background], Unobserved())

    def _spawner(self, api: PrecisionAPI, device: str, index: int) -> Spawn:
        context = multiprocessing.get_context("spawn")
        cores = machine.share(index, api.settings.workers) if api.settings.workers > 1 else None

        def spawn(link: socket.socket) -> multiprocessing.process.BaseProcess:
            arguments: tuple[Any, ...] = (api, device, 0, link, None, {}, self._callback_runner, False)
            process = context.Process(
                target=inference_worker, args=arguments, name=f"worker-{api.variant.name}", daemon=True
            )
            with machine.bound_to(cores):
                process.start()
            assert process.pid is not None  # it was started
            with suppress(OSError):  # it has ended, which its supervisor sees; or the system forbids it
                if not device.startswith("cuda"):
                    machine.lower_priority(process.pid, NICENESS)
                machine.kill_first(process.pid)
            return process

        return spawn

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


def devices(variant: Variant, settings: Settings, gpus: int) -> list[str]:
    """Return the device of each worker of a variant: one worker per GPU, or `workers` workers on the CPU.

    An empty name leaves the choice of the device to the variant's row (models.variants).
    """
    if variant.dtype == "float16" and settings.fp16_on_cpu:
        return ["cpu"] * settings.workers
    if variant.device == "cpu" or gpus == 0:
        return [""] * settings.workers
    return [f"cuda:{index}" for index in range(gpus)]

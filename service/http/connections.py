"""A limit for connections. uvicorn's own one counts requests: a client that sends nothing, or no TLS, is not counted.

uvicorn lets the event loop accept connections, which has no limit either. Here a task accepts them. It uses parts of
uvicorn that are not documented; tests/service/test_uvicorn_contract.py checks each.
"""

import asyncio
import logging
import socket
from typing import Any

import uvicorn

from service.http.slow_clients import TimedProtocol

logger = logging.getLogger(__name__)

SHORTAGE_SECONDS = 1.0
"""The pause after a connection that could not be accepted, because the machine lacks files or memory."""


class LimitedServer(uvicorn.Server):
    """uvicorn's server with at most `max_connections` open connections, those before the end of TLS included.

    Further ones wait in the kernel's backlog until one closes. A client has `handshake_seconds` for TLS.
    """

    def __init__(self, config: uvicorn.Config, max_connections: int, handshake_seconds: float) -> None:
        super().__init__(config)
        self._places = asyncio.Semaphore(max_connections)
        self._handshake_seconds = handshake_seconds
        self._tasks: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting from the sockets."""
        await super().startup(sockets=[])
        for sock in sockets or []:
            sock.listen(self.config.backlog)
            sock.setblocking(False)
            self._run(self._accept(sock))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Accept no more connections, end those that are not yet established, and let uvicorn end the others."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await super().shutdown(sockets)

    def _run(self, work: Any) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _accept(self, sock: socket.socket) -> None:
        """Accept connections for as long as there are places for them."""
        loop = asyncio.get_running_loop()
        while True:
            await self._places.acquire()
            try:
                connection, _ = await loop.sock_accept(sock)
            except ConnectionAbortedError:  # the client has gone
                self._places.release()
                continue
            except OSError as error:
                self._places.release()
                logger.warning("no connection could be accepted: %s", error)
                await asyncio.sleep(SHORTAGE_SECONDS)
                continue
            self._run(self._establish(connection))
            await asyncio.sleep(0)  # a flood of connections leaves others their turn

    async def _establish(self, connection: socket.socket) -> None:
        """Let a protocol serve the connection. Its place is free again when it is lost, or TLS fails."""
        ssl = self.config.ssl
        seconds = self._handshake_seconds if ssl else None
        establish = asyncio.get_running_loop().connect_accepted_socket
        try:
            _, protocol = await establish(self._protocol, connection, ssl=ssl, ssl_handshake_timeout=seconds)
        except BaseException as error:
            self._places.release()
            if not isinstance(error, OSError):
                raise
        else:
            protocol.when_lost(self._places.release)

    def _protocol(self) -> TimedProtocol:
        made: TimedProtocol = self.config.http_protocol_class(  # type: ignore[call-arg, assignment]
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

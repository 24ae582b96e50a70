"""Connections: a limit for them, and an end of the service that loses no request.

uvicorn's own limit counts requests: a client that sends nothing, or no TLS, is not counted. The event loop, which
accepts connections for uvicorn, has no limit either. Here a task accepts them. It uses parts of uvicorn that are not
documented; tests/service/test_uvicorn_contract.py checks each.

At the end uvicorn closes the listener at once, although balancers send new connections for seconds. So this server
first serves on for a delay, and every answer says `Connection: close`.
"""

import asyncio
import logging
import socket
from contextlib import suppress

import uvicorn

from service.http.slow_clients import TimedProtocol

logger = logging.getLogger(__name__)

SHORTAGE_SECONDS = 1.0
"""The pause after a connection that could not be accepted, because the machine lacks files or memory."""
LAST_SECONDS = 0.5
"""The time between the end of the listener and the end of idle connections: the last ones accepted send a request."""
TICK_SECONDS = 0.1
CLOSE = (b"connection", b"close")


class LimitedServer(uvicorn.Server):
    """uvicorn's server with at most `max_connections` open connections, those before the end of TLS included.

    Further ones wait in the kernel's backlog until one closes. A client has `handshake_seconds` for TLS. After a signal
    to stop, connections are accepted and requests answered for `shutdown_delay` seconds more.
    """

    def __init__(
        self, config: uvicorn.Config, max_connections: int, handshake_seconds: float, shutdown_delay: float = 0
    ) -> None:
        super().__init__(config)
        self._places = asyncio.Semaphore(max_connections)
        self._handshake_seconds = handshake_seconds
        self._shutdown_delay = shutdown_delay
        self._accepting: list[asyncio.Task[None]] = []
        self._establishing: set[asyncio.Task[None]] = set()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start accepting from the sockets."""
        await super().startup(sockets=[])
        for sock in sockets or []:
            sock.listen(self.config.backlog)
            sock.setblocking(False)
            self._accepting.append(asyncio.create_task(self._accept(sock)))

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve on for the delay, then accept no more connections, and let uvicorn end those that are open."""
        await self._announce()
        if self._shutdown_delay:
            logger.info("stopping: not ready, and serving on for %g s", self._shutdown_delay)
            await self._serve_on(self._shutdown_delay)
        await self._close(sockets or [])
        if self._shutdown_delay:
            await self._serve_on(LAST_SECONDS)
        for task in self._establishing:
            task.cancel()
        await asyncio.gather(*self._accepting, *self._establishing, return_exceptions=True)
        await super().shutdown(sockets)

    async def _announce(self) -> None:
        """Add `Connection: close` to every answer that has not begun."""
        self.config.encoded_headers.append(CLOSE)
        await self.on_tick(0)
        for connection in self.server_state.connections:
            if isinstance(connection, TimedProtocol):
                connection.close_after_answer()

    async def _serve_on(self, seconds: float) -> None:
        """Wait while requests are answered. A second SIGINT ends the wait."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0 and not self.force_exit:
            await self.on_tick(0)  # keeps the Date header right
            await asyncio.sleep(min(TICK_SECONDS, left))

    async def _close(self, sockets: list[socket.socket]) -> None:
        """Accept what waits in the kernel, which would reset it, and close the listeners."""
        for task in self._accepting:
            task.cancel()
        for sock in sockets:
            with suppress(OSError):
                while not self._places.locked():
                    await self._places.acquire()
                    self._take(sock)
            sock.close()

    async def _accept(self, sock: socket.socket) -> None:
        """Accept connections for as long as there are places for them."""
        while True:
            await _readable(sock)
            await self._places.acquire()
            try:
                self._take(sock)
            except (BlockingIOError, ConnectionAbortedError):  # the client has gone
                continue
            except OSError as error:
                logger.warning("no connection could be accepted: %s", error)
                await asyncio.sleep(SHORTAGE_SECONDS)
            await asyncio.sleep(0)  # a flood of connections leaves others their turn

    def _take(self, sock: socket.socket) -> None:
        """Accept the next connection, for a place that was acquired.

        Raises:
            OSError: there is none, or it cannot be accepted; the place is free again.
        """
        try:
            connection, _ = sock.accept()
        except OSError:
            self._places.release()
            raise
        connection.setblocking(False)
        task = asyncio.create_task(self._establish(connection))
        self._establishing.add(task)
        task.add_done_callback(self._establishing.discard)

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


async def _readable(sock: socket.socket) -> None:
    """Wait until a connection can be accepted. If this is cancelled, the connection stays in the kernel's backlog."""
    loop = asyncio.get_running_loop()
    readable = asyncio.Event()
    loop.add_reader(sock, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(sock)

"""Runs the service: bind the socket, start the workers, build the server, serve until a signal."""

import errno
import gc
import os
import socket
import sys
import warnings
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from models.files import BUNDLED, CheckpointError, cache_of_some_kind, default_path
from service import forks, logs
from service.settings import Settings
from service.workers.api import PrecisionAPI
from service.workers.launch import MakeAPI, plan

YOUNG_OBJECTS = 10_000
"""New objects, less those that were freed, after which the HTTP process searches for garbage; Python's own is 700."""


def serve(settings: Settings, api: MakeAPI = PrecisionAPI, **parts: Any) -> None:
    """Run the service until a signal stops it.

    Args:
        settings: see there.
        api: see `service.workers.launch.plan`.
        parts: arguments of `service.server.assemble`.
    """
    # prometheus_client would write to this directory, but this process counts everything (service.metrics).
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    logs.configure(settings.log_level)
    warnings.filterwarnings("ignore", module="PIL")  # Pillow warns of damaged metadata in clients' images

    sock = bind(settings)
    needs_cache = (settings.checkpoint or default_path()) != BUNDLED
    with cache_of_some_kind() if needs_cache else nullcontext():
        _serve(settings, api, sock, parts)


def _serve(settings: Settings, api: MakeAPI, sock: socket.socket, parts: Mapping[str, Any]) -> None:
    forks.begin()  # does nothing if it runs
    try:
        planned = plan(settings, api)
    except CheckpointError as error:
        sys.exit(f"error: {error}")
    with planned.started_ahead():
        # The workers start while this process imports FastAPI and LitServe.
        from service.server import assemble  # noqa: PLC0415
        from service.tracing import TracingUnavailable  # noqa: PLC0415

        try:
            server = assemble(planned, **parts)
        except (CheckpointError, TracingUnavailable) as error:
            sys.exit(f"error: {error}")
        scheme = "https" if settings.ssl_certfile else "http"
        spare_garbage_collection()
        print(f"Serving {', '.join(server.pools)} on {scheme}://{authority(*sock.getsockname()[:2])}", flush=True)
        server.run(sock)
    if trace := server.app.state.service.trace:
        trace.close()


def spare_garbage_collection() -> None:
    """Let the search for garbage leave out what exists now, modules above all, and run after more new objects.

    Requests leave no garbage that reference counts do not free: the search found none after 500 answers and 20 errors.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG_OBJECTS, *gc.get_threshold()[1:])


def bind(settings: Settings) -> socket.socket:
    """Return a socket that listens; exit with the flag to change if that is impossible."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
        sock.listen()  # two services can bind one port, but only one can listen
    except OSError as error:
        sock.close()
        flag = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        where = authority(settings.host, settings.port)
        sys.exit(f"error: cannot listen on {where}: {error.strerror}; choose another {flag}")
    sock.set_inheritable(False)
    return sock


def authority(host: str, port: int) -> str:
    """Return host and port as they stand in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"

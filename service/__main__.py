"""`python -m service`: read the settings, bind the socket, start the server."""

import errno
import os
import socket
import sys
import warnings
from contextlib import nullcontext
from typing import Any

from models.files import BUNDLED, CheckpointError, cache_of_some_kind, default_path
from service import logs
from service.settings import Settings, parse


def main(argv: list[str] | None = None) -> None:
    """Serve with the settings from flags and environment."""
    serve(parse(argv))


def serve(settings: Settings, **parts: Any) -> None:
    """Run the service until a signal stops it. `parts` are arguments of `build_server`."""
    # prometheus_client would write to this directory, but this process counts everything (service.metrics).
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    logs.configure(settings.log_level)
    warnings.filterwarnings("ignore", module="PIL")  # Pillow warns of damaged metadata in clients' images

    from service.server import build_server  # noqa: PLC0415 - it reads the environment that was set above
    from service.tracing import TracingUnavailable  # noqa: PLC0415

    sock = bind(settings)
    scheme = "https" if settings.ssl_certfile else "http"
    needs_cache = (settings.checkpoint or default_path()) != BUNDLED
    with cache_of_some_kind() if needs_cache else nullcontext():
        try:
            server = build_server(settings, **parts)
        except (CheckpointError, TracingUnavailable) as error:
            sys.exit(f"error: {error}")
        print(f"Serving {', '.join(server.pools)} on {scheme}://{authority(*sock.getsockname()[:2])}", flush=True)
        server.run(sock)
    if trace := server.app.state.service.trace:
        trace.close()


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


if __name__ == "__main__":
    main()

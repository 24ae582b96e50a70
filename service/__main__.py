"""`python -m service`: load every variant, warm up, test itself, serve."""

import errno
import os
import socket
import sys
import warnings
from typing import Any

from models.files import CheckpointError
from models.variants import thread_environment
from service import logs
from service.settings import Settings, parse


def main(argv: list[str] | None = None) -> None:
    serve(parse(argv))


def serve(settings: Settings, **parts: Any) -> None:
    """Run the service until it is told to stop; `parts` go to `build_server`."""
    # Everything is measured in this one process (service.metrics), so a multi-process directory has no use here.
    os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)
    os.environ.update(thread_environment(settings.cpu_backend) | os.environ)  # workers inherit it
    logs.configure(settings.log_level)
    warnings.filterwarnings("ignore", module="PIL")  # damaged metadata in a client's image is no news

    from service.server import build_server  # noqa: PLC0415 - after the environment is set
    from service.tracing import TracingUnavailable  # noqa: PLC0415

    sock = _bind(settings)
    try:
        server = build_server(settings, **parts)
    except (CheckpointError, TracingUnavailable) as error:
        sys.exit(f"error: {error}")
    scheme = "https" if settings.ssl_certfile else "http"
    print(f"Serving {', '.join(server.pools)} on {scheme}://{_authority(*sock.getsockname()[:2])}", flush=True)
    server.run(sock)
    if trace := server.app.state.service.trace:
        trace.close()


def _bind(settings: Settings) -> socket.socket:
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    sock = socket.socket(family)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((settings.host, settings.port))
        sock.listen()  # two services can be bound to one port; the second to listen is refused
    except OSError as error:
        sock.close()
        flag = "--port" if error.errno in (errno.EADDRINUSE, errno.EACCES) else "--host"
        where = _authority(settings.host, settings.port)
        sys.exit(f"error: cannot listen on {where}: {error.strerror}; choose another {flag}")
    sock.set_inheritable(False)
    return sock


def _authority(host: str, port: int) -> str:
    """As it stands in a URL."""
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


if __name__ == "__main__":
    main()

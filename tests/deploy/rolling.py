"""A real HAProxy, and clients that send predictions without a pause until they are stopped."""

import http.client
import os
import subprocess
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from benchmarks.wrk import free_port
from tests import tools
from tests.service.pictures import png
from tests.service.processes import ROOT

CONFIGURATION = ROOT / "deploy" / "haproxy" / "haproxy.cfg"
PACE_SECONDS = 0.05
"""The pause of a client between two requests: the services start while the load runs."""


@contextmanager
def balancer(ports: Sequence[int], folder: Path) -> Iterator[str]:
    """Run HAProxy with the documented configuration and a replica on each port; yield its address."""
    lines = [f"    server replica-{port} 127.0.0.1:{port}" for port in ports]
    replicas = folder / "replicas.cfg"
    replicas.write_text("\n".join(["backend replicas", *lines, ""]))
    listen = f"127.0.0.1:{free_port()}"
    command = [tools.find("haproxy"), "-db", "-f", str(CONFIGURATION), "-f", str(replicas)]
    with (folder / "haproxy.log").open("w") as log:
        process = subprocess.Popen(command, env=os.environ | {"PRECISION_LISTEN": listen}, stdout=log, stderr=log)
    try:
        yield f"http://{listen}"
        assert process.poll() is None, (folder / "haproxy.log").read_text()
    finally:
        process.terminate()
        process.wait(30)


@dataclass(frozen=True)
class Request:
    """A request that ended: its times of `time.monotonic`, and `200`, another status or the exception."""

    began: float
    ended: float
    result: str


class Load:
    """Clients of one address. Half keep their connections, half open one for each request. None sends anything again.

    `requests` holds those that ended. A client that keeps its connection opens a new one if an answer says `close`.
    """

    def __init__(self, url: str, clients: int) -> None:
        self.requests: list[Request] = []
        self._address = urlsplit(url).netloc
        self._is_over = threading.Event()
        self._threads = [threading.Thread(target=self._send, args=(index,)) for index in range(clients)]

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._is_over.set()
        for thread in self._threads:
            thread.join(60)

    def failures(self) -> list[Request]:
        """Return the requests without an answer of 200."""
        return [request for request in self.requests if request.result != "200"]

    def _send(self, index: int) -> None:
        connection = http.client.HTTPConnection(self._address, timeout=30)
        headers = {"Content-Type": "image/png"} | ({"Connection": "close"} if index % 2 else {})
        while not self._is_over.wait(PACE_SECONDS):
            began = time.monotonic()
            try:
                connection.request("POST", "/predict/fp32", png(index), headers)
                answer = connection.getresponse()
                answer.read()
                result = str(answer.status)
            except (OSError, http.client.HTTPException) as error:
                connection.close()
                result = repr(error)
            self.requests.append(Request(began, time.monotonic(), result))
        connection.close()


class Upload:
    """A request for 40 images as raw pixels: too large for HAProxy to send it again. The last image is yet to come."""

    BODY = bytes(40 * 3072)

    def __init__(self, url: str) -> None:
        self._connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
        self._connection.putrequest("POST", "/predict/fp32")
        self._connection.putheader("Content-Type", "application/octet-stream")
        self._connection.putheader("Content-Length", str(len(self.BODY)))
        self._connection.endheaders(self.BODY[:-3072])

    def finish(self) -> bool:
        """Send the last image. Return whether the answer is 200."""
        try:
            self._connection.send(self.BODY[-3072:])
            return self._connection.getresponse().status == 200
        except (OSError, http.client.HTTPException):
            return False
        finally:
            self._connection.close()

"""What attacks on a running service cost a bystander: `python -m benchmarks.assault [ATTACK ...]`.

A bystander sends a good request every 200 ms, first in calm, then during each attack. The table has the share of its
requests that were answered with 200, its latency, and the memory of the HTTP process and of its decoders.
"""

import argparse
import gzip
import http.client
import json
import socket
import statistics
import struct
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from urllib.parse import urlsplit

import numpy as np
import psutil
from tabulate import tabulate

from benchmarks.wrk import Contender, free_port, png, process, wait_until_it_answers
from common import machine

PERIOD = 0.2
"""Seconds between two requests of the bystander."""
SECONDS = 10
"""How long each attack goes on."""
ATTACKERS = 3
"""Connections that attack side by side, each with the next body as soon as the last one is answered."""
MEGABYTE = 2**20


@dataclass(frozen=True)
class Body:
    """A hostile request body."""

    path: str
    content: bytes
    content_type: str
    encoding: str = "identity"


def _chunk(name: bytes, data: bytes = b"") -> bytes:
    return struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))


def charset(variant: str) -> Body:
    """Return a form whose text field of 8 MB names a codec of quadratic time."""
    text = b'--x\r\nContent-Disposition: form-data; name="t"\r\n\r\n' + b"a" * (8 * 10**6) + b"\r\n--x--\r\n"
    content_type = "multipart/form-data; boundary=x; charset=punycode"
    return Body(f"/predict/{variant}", gzip.compress(text, 1), content_type, "gzip")


def objects(variant: str) -> Body:
    """Return an inference request of 2.6 million empty JSON objects."""
    head = b'{"inputs":[{"name":"images","shape":[1],"datatype":"BYTES","data":['
    text = head + b",".join([b"{}"] * 2_600_000) + b"]}]}"
    return Body(f"/v2/models/resnet18-{variant}/infer", gzip.compress(text, 1), "application/json", "gzip")


def keys(variant: str) -> Body:
    """Return half a million unknown JSON keys."""
    text = b"{" + b",".join(b'"%d":1' % number for number in range(500_000)) + b"}"
    return Body(f"/predict/{variant}", gzip.compress(text, 1), "application/json", "gzip")


def segments(variant: str) -> Body:
    """Return a JPEG of 410,000 application segments."""
    content = b"\xff\xd8" + b"\xff\xe1\x00\x10Exif\x00\x00II*\x00\x08\x00\x00\x00"[:18] * 410_000 + b"\xff\xd9"
    return Body(f"/predict/{variant}", gzip.compress(content, 1), "image/jpeg", "gzip")


def chunks(variant: str) -> Body:
    """Return a PNG of 600,000 empty chunks."""
    whole = png()
    content = whole[:33] + _chunk(b"IDAT") * 600_000 + whole[33:]
    return Body(f"/predict/{variant}", gzip.compress(content, 1), "image/png", "gzip")


def bombs(variant: str) -> Body:
    """Return a form of 8 PNGs of 16 megapixels each, a few kilobytes in all."""
    rows = (b"\x00" + bytes(3 * 4096)) * 4096
    head = struct.pack(">IIBBBBB", 4096, 4096, 8, 2, 0, 0, 0)
    bomb = b"\x89PNG\r\n\x1a\n" + _chunk(b"IHDR", head) + _chunk(b"IDAT", zlib.compress(rows, 9)) + _chunk(b"IEND")
    part = b'--x\r\nContent-Disposition: form-data; name="image"; filename="x"\r\n\r\n'
    content = b"".join(part + bomb + b"\r\n" for _ in range(8)) + b"--x--\r\n"
    return Body(f"/predict/{variant}", content, "multipart/form-data; boundary=x")


def zeros(variant: str) -> Body:
    """Return 8 MB of zeros as one image."""
    return Body(f"/predict/{variant}", gzip.compress(bytes(8 * MEGABYTE), 9), "image/png", "gzip")


def many(variant: str) -> Body:
    """Return 256 images in one request."""
    pixels = np.random.default_rng(0).integers(0, 256, 256 * 3072, np.uint8)
    return Body(f"/predict/{variant}", pixels.tobytes(), "application/octet-stream")


BODIES = {make.__name__: make for make in (charset, objects, keys, segments, chunks, bombs, zeros, many)}
"""Name -> the function that makes the body for a variant."""


@dataclass
class Bystander:
    """The requests of a client that means no harm: seconds of each, and how many were not answered with 200."""

    seconds: list[float] = field(default_factory=list)
    failed: int = 0

    @property
    def answered(self) -> float:
        """The share of requests that were answered with 200."""
        return len(self.seconds) / max(1, len(self.seconds) + self.failed)

    @property
    def p50(self) -> float:
        """The median latency in seconds."""
        return statistics.median(self.seconds)

    @property
    def p99(self) -> float:
        """The latency that 99 % of the requests do not exceed, in seconds."""
        return float(np.quantile(self.seconds, 0.99, method="inverted_cdf"))


@contextmanager
def bystander(url: str, variant: str) -> Iterator[Bystander]:
    """Send a good request every PERIOD seconds, each on time whatever the last one took, while the block runs."""
    found, is_over = Bystander(), threading.Event()
    with ThreadPoolExecutor(64) as requests:

        def ask() -> None:
            began = time.perf_counter()
            if send(url, Body(f"/predict/{variant}", png(), "image/png")) == http.HTTPStatus.OK:
                found.seconds.append(time.perf_counter() - began)
            else:
                found.failed += 1

        def go() -> None:
            while not is_over.wait(PERIOD):
                requests.submit(ask)

        thread = threading.Thread(target=go)
        thread.start()
        try:
            yield found
        finally:
            is_over.set()
            thread.join()


def send(url: str, body: Body, timeout: float = 60) -> int:
    """Return the status of the answer to one request on a connection of its own; 0 if there is none."""
    place = urlsplit(url)
    connection = http.client.HTTPConnection(place.hostname or "", place.port, timeout=timeout)
    headers = {"Content-Type": body.content_type, "Content-Encoding": body.encoding}
    try:
        connection.request("POST", body.path, body.content, headers)
        return connection.getresponse().status
    except OSError:
        return 0
    finally:
        connection.close()


def attack_with(body: Body) -> Callable[[str, str, threading.Event], None]:
    """Return an attack that sends the body again and again on ATTACKERS connections."""

    def attack(url: str, _: str, is_over: threading.Event) -> None:
        def repeat(_: int) -> None:
            while not is_over.is_set():
                send(url, body)

        with ThreadPoolExecutor(ATTACKERS) as attackers:
            list(attackers.map(repeat, range(ATTACKERS)))

    return attack


def silent_uploads(url: str, variant: str, is_over: threading.Event) -> None:
    """Open 40 uploads of 8 MB that lack their last byte."""
    place, content = urlsplit(url), bytes(8 * MEGABYTE - 1)
    head = f"POST /predict/{variant} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: image/png\r\n"
    head += f"Content-Length: {len(content) + 1}\r\n\r\n"
    with ExitStack() as uploads:
        for _ in range(40):
            with suppress(OSError):  # a refused upload ends while it is sent
                connection = uploads.enter_context(socket.create_connection((place.hostname, place.port), timeout=5))
                connection.sendall(head.encode() + content)
        is_over.wait()


def scrapes(url: str, variant: str, is_over: threading.Event) -> None:
    """Ask for /metrics 300 times at once and go away, again and again."""
    place = urlsplit(url)
    while not is_over.is_set():
        with ExitStack() as clients, suppress(OSError):
            for _ in range(300):
                client = clients.enter_context(socket.create_connection((place.hostname, place.port), timeout=30))
                client.sendall(b"GET /metrics HTTP/1.1\r\nHost: %b\r\n\r\n" % place.netloc.encode())
        is_over.wait(1)


def idle_connections(url: str, variant: str, is_over: threading.Event) -> None:
    """Hold 900 connections that send nothing, and open those again that the service closes."""
    place = urlsplit(url)
    while not is_over.is_set():
        with ExitStack() as clients, suppress(OSError):
            for _ in range(900):
                clients.enter_context(socket.create_connection((place.hostname, place.port), timeout=30))
            is_over.wait(5)


OTHERS = {attack.__name__: attack for attack in (silent_uploads, scrapes, idle_connections)}
ATTACKS = (*BODIES, *OTHERS)


@contextmanager
def under_attack(name: str, url: str, variant: str) -> Iterator[None]:
    """Attack the service while the block runs."""
    attack, is_over = OTHERS.get(name) or attack_with(BODIES[name](variant)), threading.Event()
    thread = threading.Thread(target=attack, args=(url, variant, is_over))
    thread.start()
    try:
        yield
    finally:
        is_over.set()
        thread.join()


def peak_bytes(pid: int) -> int:
    """Return the most memory that the process had resident since `reset_peak`."""
    with open(f"/proc/{pid}/status") as status:  # noqa: PTH123 - a kernel file
        return 1024 * next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))


def reset_peak(pid: int) -> None:
    """Begin a new peak (proc(5), clear_refs)."""
    with open(f"/proc/{pid}/clear_refs", "w") as refs:  # noqa: PTH123 - a kernel file
        refs.write("5")


def decoder_bytes(pid: int) -> int:
    """Return the resident memory of the service's decoders together."""
    total = 0
    for child in psutil.Process(pid).children(recursive=True):
        try:
            total += child.memory_info().rss if child.name() == "decoder" else 0
        except psutil.NoSuchProcess:
            continue
    return total


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.assault", description=__doc__)
    parser.add_argument("attacks", nargs="*", default=ATTACKS, help=f"of {', '.join(ATTACKS)}; all without any")
    parser.add_argument("--variant", default="int8")
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each attack")
    args = parser.parse_args(argv)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    rows = []
    with process("service", "--port", str(port), "--variants", args.variant, "--log-level", "warning") as server:
        wait_until_it_answers(Contender("service", f"{url}/predict/{args.variant}", png(), "image/png"))
        for name in ("calm", *args.attacks):
            reset_peak(server.pid)
            before = psutil.Process(server.pid).memory_info().rss
            with ExitStack() as during:
                if name != "calm":
                    during.enter_context(under_attack(name, url, args.variant))
                found = during.enter_context(bystander(url, args.variant))
                time.sleep(args.seconds)
                decoders = decoder_bytes(server.pid)
            times = (f"{1000 * found.p50:.1f}", f"{1000 * found.p99:.1f}")
            sizes = (before, peak_bytes(server.pid), psutil.Process(server.pid).memory_info().rss, decoders)
            rows.append([name, f"{found.answered:.1%}", *times, *(f"{size / MEGABYTE:.0f}" for size in sizes)])
            print(rows[-1], flush=True)
    heads = ["attack", "answered", "p50, ms", "p99, ms", "MiB before", "peak", "after", "decoders"]
    print(tabulate(rows, heads, tablefmt="github"))
    print(json.dumps(machine.describe("torch", "openvino", "pillow", "pebble", "uvicorn")))


if __name__ == "__main__":
    main()

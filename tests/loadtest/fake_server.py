"""A service with known delays and known mistakes that answers as the real one documents.

    python fake_server.py JSON [CERTIFICATE KEY]

The JSON names the variants: `{"fp32": {"delay": 0.01, "serial": true, "wrong_below": 0, "fail_every": 0,
"stall_at": 0, "stall_every": 0, "stall_seconds": 0, "die_at": 0, "memory": 2e8, "strange": 0, "info": {...}}}`. The
right class of an image is its first byte modulo 10; a variant is wrong where the second byte is below `wrong_below`.
`memory` and `strange` (a counter of requests) are values of metrics, and may be "nan". The server prints its port as
soon as it
accepts connections.
"""

import asyncio
import contextlib
import io
import json
import os
import re
import socket
import sys
import time
from typing import Any

import numpy as np
import uvicorn
from numpy.typing import NDArray
from PIL import Image
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.process_collector import ProcessCollector

EDGES = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2)


class Metrics:
    """The metrics of the real service that the load test reads."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        options = {"registry": self.registry}
        self.requests = Counter("precision_requests_total", "", ("variant", "outcome"), **options)
        self.duration = Histogram("precision_request_duration_seconds", "", ("variant",), buckets=EDGES, **options)
        phase = ("variant", "phase")
        self.phase = Histogram("precision_phase_duration_seconds", "", phase, buckets=EDGES, **options)
        device = ("variant", "device")
        self.inference = Histogram("precision_inference_duration_seconds", "", device, buckets=EDGES, **options)
        self.batch = Histogram("precision_batch_size", "", ("variant",), buckets=(1, 2, 4, 8), **options)
        kind = ("variant", "device", "kind")
        self.needed = Histogram("precision_inference_memory_bytes", "", kind, buckets=(1e6, 1e7), **options)
        self.memory = Gauge("precision_memory_bytes", "", ("variant", "kind"), **options)
        self.model = Gauge("precision_model_bytes", "", ("variant", "kind"), **options)


class Variant:
    """The behaviour and the counters of one variant."""

    def __init__(self, name: str, spec: dict[str, Any], metrics: Metrics) -> None:
        self.name, self.spec, self.metrics = name, spec, metrics
        self.count = 0
        self.lock = asyncio.Lock()
        metrics.memory.labels(name, "rss").set(float(spec.get("memory", 2e8)))
        metrics.requests.labels(name, "strange").inc(float(spec.get("strange", 0)))
        metrics.model.labels(name, "parameters").set(4.4e7)

    async def predict(self, pixels: NDArray[np.uint8], received: float) -> tuple[int, dict[str, Any]]:
        """Answer a request whose body took `received` seconds to arrive."""
        began = time.perf_counter()
        self.count += 1
        number = self.count
        if self.spec.get("die_at") == number:
            os._exit(1)
        if self.spec.get("fail_every") and number % self.spec["fail_every"] == 0:
            self.metrics.requests.labels(self.name, "overloaded").inc()
            return 503, {"title": "Too many images are waiting", "status": 503, "detail": "try again"}
        delay = self.spec.get("delay", 0.001)
        await asyncio.sleep(self.stall_left())
        async with self.lock if self.spec.get("serial") else contextlib.nullcontext():
            queued = time.perf_counter() - began
            # The planted time of the forward pass: the tests compare what the load test measures with it.
            await asyncio.sleep(self.spec["stall_seconds"] if self.spec.get("stall_at") == number else delay)
        total = received + time.perf_counter() - began
        self.observe({"receive": received, "queue": queued, "inference": delay}, total)
        classes = pixels[:, 0, 0, 0] % 10
        classes = np.where(pixels[:, 0, 0, 1] < self.spec.get("wrong_below", 0), (classes + 1) % 10, classes)
        timing = {"queue_seconds": queued, "inference_seconds": delay, "total_seconds": total}
        predictions = [{"label": "x", "class_index": int(c), "probability": 1.0} for c in classes]
        return 200, {"variant": self.name, "predictions": predictions, "batch_size": len(pixels), "timing": timing}

    def stall_left(self) -> float:
        """Return the seconds until the stall ends that begins every `stall_every` seconds; 0 between two stalls."""
        every = self.spec.get("stall_every", 0)
        return max(0.0, self.spec["stall_seconds"] - time.perf_counter() % every) if every else 0.0

    def observe(self, phases: dict[str, float], total: float) -> None:
        self.metrics.requests.labels(self.name, "ok").inc()
        self.metrics.duration.labels(self.name).observe(total)
        for phase, seconds in phases.items():
            self.metrics.phase.labels(self.name, phase).observe(seconds)
        self.metrics.inference.labels(self.name, "cpu").observe(phases["inference"])
        self.metrics.batch.labels(self.name).observe(1)
        self.metrics.needed.labels(self.name, "cpu", "activation_peak").observe(3e6)


class App:
    """The routes that the load test uses."""

    def __init__(self, specs: dict[str, dict[str, Any]]) -> None:
        self.metrics = Metrics()
        self.specs = specs
        self.variants = {name: Variant(name, spec, self.metrics) for name, spec in specs.items()}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http":
            return
        began, body = time.perf_counter(), b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        received = time.perf_counter() - began
        status, answer = await self.answer(scope["path"], dict(scope["headers"]), body, received)
        content = answer if isinstance(answer, bytes) else json.dumps(answer).encode()
        headers = [(b"content-type", b"text/plain"), (b"content-length", str(len(content)).encode())]
        await send({"type": "http.response.start", "status": status, "headers": headers})
        await send({"type": "http.response.body", "body": content})

    async def answer(self, path: str, headers: dict[bytes, bytes], body: bytes, received: float) -> tuple[int, Any]:
        if path == "/variants":
            return 200, {
                "variants": [self.row(name) for name in self.specs],
                "checkpoint": {"sha256": "c0ffee"},
                "service": {"version": "fake", "cores": 2},
            }
        if path == "/metrics":
            return 200, generate_latest(self.metrics.registry)
        if path == "/health/live":
            return 200, {}
        name = path.removeprefix("/predict/")
        if name not in self.variants:
            return 404, {"title": "There is no such variant"}
        return await self.variants[name].predict(pixels(headers.get(b"content-type", b"").decode(), body), received)

    def row(self, name: str) -> dict[str, Any]:
        return {
            "name": name,
            "state": "ready",
            "reason": None,
            "device": "cpu",
            "dtype": "float32",
            "reference": None if name == "fp32" else "fp32",
            **self.specs[name].get("info", {}),
        }


def pixels(content_type: str, body: bytes) -> NDArray[np.uint8]:
    """Return `[N, 3, 32, 32]` from any of the bodies that the load test sends."""
    if content_type == "application/octet-stream":
        return np.frombuffer(body, np.uint8).reshape(-1, 3, 32, 32)
    if content_type.startswith("multipart/"):
        boundary = re.search("boundary=(.*)", content_type)[1].encode()  # type: ignore[index]
        parts = body.split(b"--" + boundary)[1:-1]
        return np.stack([png(part.split(b"\r\n\r\n", 1)[1][:-2]) for part in parts])
    return png(body)[np.newaxis]


def png(data: bytes) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(data))).transpose(2, 0, 1)


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as sock:
        print(sock.getsockname()[1], flush=True)
        app = App(json.loads(sys.argv[1]))
        certificate, key = sys.argv[2:] or (None, None)
        config = uvicorn.Config(
            app,
            log_level="critical",
            lifespan="off",
            timeout_graceful_shutdown=1,
            ssl_certfile=certificate,
            ssl_keyfile=key,
        )
        uvicorn.Server(config).run(sockets=[sock])


if __name__ == "__main__":
    main()

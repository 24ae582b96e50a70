"""Every metric of the service; the only module that imports prometheus_client.

All of it lives in the HTTP process: workers send their measurements with each answer, so no count is lost, doubled or reset
when a worker dies, and there is no multi-process directory to manage.
"""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

import psutil
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.errors import REASONS

SECONDS = (
    0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05,
    0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
BYTES = tuple(float(2**power) for power in range(14, 35, 2))
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)
PHASES = ("receive", "decode", "queue", "copy_in", "inference", "copy_out", "encode", "other")
OUTCOMES = ("ok", *REASONS)
UNKNOWN = "unknown"
"""The `variant` label of requests to a variant that does not exist: paths must not become labels."""

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """The registry and what may be told to it. `variants` are the names served; every child exists from the start."""

    def __init__(self, variants: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        self.names = tuple(variants)
        self._devices: dict[str, str] = {}
        self._kinds: dict[str, str] = {}
        new = {"registry": self.registry}
        self._requests = Counter(
            "precision_requests", "HTTP predictions that ended, each once, by outcome.", ["variant", "outcome"], **new
        )
        self._duration = Histogram(
            "precision_request_duration_seconds",
            "From a prediction's headers to its answer, in the server.",
            ["variant"], buckets=SECONDS, **new,
        )  # fmt: skip
        self._phase = Histogram(
            "precision_phase_duration_seconds",
            "Parts of the request duration of answered predictions; `other` is what no phase explains.",
            ["variant", "phase"], buckets=SECONDS, **new,
        )  # fmt: skip
        self._inference = Histogram(
            "precision_inference_duration_seconds",
            "Device-synchronised forward pass of the batch that a request was in, once per request.",
            ["variant", "device"], buckets=SECONDS, **new,
        )  # fmt: skip
        self._memory = Histogram(
            "precision_inference_memory_bytes",
            "What the executed batch needed beyond the resident weights, once per request. activation_peak: measured "
            "once per batch size at warm-up; cuda_peak: of this very batch.",
            ["variant", "device", "kind"], buckets=BYTES, **new,
        )  # fmt: skip
        self._batch = Histogram(
            "precision_batch_size", "Images per executed batch.", ["variant"], buckets=IMAGES, **new
        )
        self._images = Counter("precision_images", "Images predicted.", ["variant"], **new)
        self._in_flight = Gauge("precision_requests_in_flight", "Predictions being handled now.", ["variant"], **new)
        self._queue = Gauge("precision_queue_depth", "Images waiting for a batch now.", ["variant"], **new)
        self._restarts = Counter(
            "precision_worker_restarts", "Workers lost and started again, by reason.", ["variant", "reason"], **new
        )
        self._model = Gauge(
            "precision_model_bytes",
            "Size of the model: on disk, and of its parameters and buffers.",
            ["variant", "kind"],
            **new,
        )
        self._info = Gauge(
            "precision_variant_info", "What runs; always 1.",
            ["variant", "device", "dtype", "backend", "checkpoint", "torch", "isa"], **new,
        )  # fmt: skip
        self._ready = Gauge("precision_variant_ready", "1 when the variant answers, else 0.", ["variant"], **new)
        self._load = Gauge("precision_load_seconds", "Reading and preparing the weights.", ["variant"], **new)
        self._warmup = Gauge("precision_warmup_seconds", "Running every batch size once.", ["variant"], **new)
        self._selftest = Gauge(
            "precision_selftest_agreement_ratio",
            "Share of the bundled images with the stored fp32 answer, at start-up.", ["variant"], **new,
        )  # fmt: skip
        self._create_children()
        ProcessCollector(registry=self.registry)

    def _create_children(self) -> None:
        for variant in (*self.names, UNKNOWN):
            for outcome in OUTCOMES:
                self._requests.labels(variant, outcome)
        for variant in self.names:
            for metric in (self._duration, self._batch, self._images, self._in_flight, self._queue, self._ready):
                metric.labels(variant)
            for phase in PHASES:
                self._phase.labels(variant, phase)
            for reason in ("died", "hung"):
                self._restarts.labels(variant, reason)

    def watch(self, queue_depths: Callable[[], dict[str, int]], worker_pids: Callable[[], dict[str, int]]) -> None:
        """Read queue depths and the workers' memory at every scrape."""
        for variant in self.names:
            self._queue.labels(variant).set_function(lambda variant=variant: queue_depths()[variant])
        self.registry.register(_WorkerMemory(worker_pids))

    def started(self, variant: str) -> None:
        if variant in self.names:
            self._in_flight.labels(variant).inc()

    def ended(self, variant: str, outcome: str, seconds: float) -> None:
        """One HTTP prediction ended, whatever happened to it."""
        known = variant in self.names
        self._requests.labels(variant if known else UNKNOWN, outcome).inc()
        if known:
            self._in_flight.labels(variant).dec()
            self._duration.labels(variant).observe(seconds)

    def answered(self, variant: str, images: int, phases: dict[str, float], memory_bytes: int) -> None:
        """One prediction was answered; `phases` in seconds, one for each of PHASES."""
        device = self._devices[variant]
        for phase, seconds in phases.items():
            self._phase.labels(variant, phase).observe(seconds)
        self._inference.labels(variant, device).observe(phases["inference"])
        self._memory.labels(variant, device, self._kinds[variant]).observe(memory_bytes)
        self._images.labels(variant).inc(images)

    def batch(self, variant: str, images: int) -> None:
        self._batch.labels(variant).observe(images)

    def restart(self, variant: str, reason: str) -> None:
        self._restarts.labels(variant, reason).inc()

    def state(self, variant: str, state: str, card: dict[str, Any]) -> None:
        """A variant entered `state`; `card` describes its engine once it is ready."""
        self._ready.labels(variant).set(state == "ready")
        if state != "ready":
            return
        self._devices[variant], self._kinds[variant] = card["device"], card["memory_kind"]
        self._inference.labels(variant, card["device"])
        self._memory.labels(variant, card["device"], card["memory_kind"])
        labels = (
            card["device"],
            card["dtype"],
            card["backend"],
            card["checkpoint_sha256"][:12],
            card["torch"],
            card["isa"],
        )
        self._info.labels(variant, *labels).set(1)
        for kind in ("serialized", "parameter", "buffer"):
            self._model.labels(variant, {"parameter": "parameters", "buffer": "buffers"}.get(kind, kind)).set(
                card[f"{kind}_bytes"]
            )
        self._load.labels(variant).set(card["load_seconds"])
        self._warmup.labels(variant).set(card["warmup_seconds"])
        self._selftest.labels(variant).set(card["selftest_agreement"])

    def exposition(self) -> bytes:
        return generate_latest(self.registry)


class _WorkerMemory(Collector):
    """RSS and PSS of each worker process, read when scraped; a dead worker has no series."""

    def __init__(self, pids: Callable[[], dict[str, int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(
            "precision_memory_bytes",
            "Memory of the variant's worker process now: rss counts shared pages in full, pss by share.",
            labels=["variant", "kind"],
        )
        for variant, pid in self._pids().items():
            try:
                memory = psutil.Process(pid).memory_full_info()
            except psutil.Error:
                continue
            family.add_metric([variant, "rss"], memory.rss)
            family.add_metric([variant, "pss"], memory.pss)
        yield family

"""Every metric of the service; the only module that imports prometheus_client.

All of it lives in the HTTP process: workers send their measurements with each answer, so no count is lost, doubled or
reset when a worker dies, and there is no multi-process directory to manage. docs/metrics.md says what each means.
"""

from bisect import bisect_left
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import cache, partial
from typing import Any, NamedTuple

import prometheus_client
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector

from service.errors import REASONS
from service.logs import UNKNOWN
from service.phases import Phases
from service.workers import memory
from service.workers.memory import Process
from service.workers.status import State, WorkerInfo

SECONDS = (
    0.00025, 0.0005, 0.001, 0.0015, 0.002, 0.003, 0.005, 0.0075, 0.01, 0.015, 0.02, 0.03, 0.05,
    0.075, 0.1, 0.15, 0.2, 0.3, 0.5, 1.0, 2.0, 5.0, 10.0,
)  # fmt: skip
BYTES = tuple(float(2**power) for power in range(14, 35, 2))
DISTANCES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1.0, 3.0, 10.0, 30.0)
IMAGES = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 1024)

PHASES = Phases._fields
OUTCOMES = ("ok", *REASONS)
STATES = tuple(State)
CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


# One thread observes and is scraped, so these do without prometheus_client's locks, which every request would take a
# dozen times, and without its walk through the buckets.
class Counter(prometheus_client.Counter):
    def inc(self, amount: float = 1, exemplar: dict[str, str] | None = None) -> None:
        self._value._value += amount


class Gauge(prometheus_client.Gauge):
    def inc(self, amount: float = 1) -> None:
        self._value._value += amount

    def dec(self, amount: float = 1) -> None:
        self._value._value -= amount


class Histogram(prometheus_client.Histogram):
    def observe(self, amount: float, exemplar: dict[str, str] | None = None) -> None:
        self._sum._value += amount
        self._buckets[bisect_left(self._upper_bounds, amount)]._value += 1


@dataclass(frozen=True)
class Row:
    """One metric: its name in the exposition (without `_total`), labels, help, and buckets if it is a histogram."""

    kind: type[Counter] | type[Gauge] | type[Histogram]
    name: str
    labels: tuple[str, ...]
    help: str
    buckets: tuple[float, ...] = ()

    def register(self, registry: CollectorRegistry) -> Any:
        buckets = {"buckets": self.buckets} if self.buckets else {}
        return self.kind(self.name, self.help, self.labels, registry=registry, **buckets)  # type: ignore[arg-type]


V = ("variant",)
ROWS = (
    Row(Counter, "precision_requests", (*V, "outcome"), "HTTP predictions that ended, each once, by outcome."),
    Row(Counter, "precision_compare_requests", ("outcome",), "Comparisons that ended, each once, by outcome."),
    Row(Histogram, "precision_request_duration_seconds", V, "From a prediction's headers to its answer.", SECONDS),
    Row(
        Histogram, "precision_phase_duration_seconds", (*V, "phase"),
        "Parts of the request duration of answered predictions; `other` is what no phase explains.", SECONDS,
    ),
    Row(
        Histogram, "precision_inference_duration_seconds", (*V, "device"),
        "Device-synchronised forward pass of the batch that a request was in, once per request.", SECONDS,
    ),
    Row(
        Histogram, "precision_inference_memory_bytes", (*V, "device", "kind"),
        "What the executed batch, all its requests together, needed beyond the resident weights, once per request. "
        "activation_peak: measured once per batch size at warm-up, a lower bound: what earlier batches left for reuse "
        "is not in it; cuda_graph: the graph that ran, measured when it was captured, an upper bound: the batch was "
        "padded to its size.", BYTES,
    ),
    Row(Histogram, "precision_batch_size", V, "Images per executed batch.", IMAGES),
    Row(Counter, "precision_images", V, "Images predicted."),
    Row(Counter, "precision_worker_busy_seconds", V, "Time that workers spent on executed batches."),
    Row(Gauge, "precision_requests_in_flight", V, "Predictions being handled now."),
    Row(Gauge, "precision_queue_depth", V, "Images waiting for a batch now."),
    Row(Gauge, "precision_model_bytes", (*V, "kind"), "Model size: the file, and resident parameters and buffers."),
    Row(
        Gauge, "precision_variant_info", (*V, "device", "dtype", "backend", "checkpoint", "torch", "isa"),
        "What runs, by device; always 1.",
    ),
    Row(Gauge, "precision_variant_ready", V, "1 when the variant answers, else 0."),
    Row(Gauge, "precision_variant_state", (*V, "state"), "1 for the state that the variant is in, 0 for the others."),
    Row(Gauge, "precision_workers", (*V, "state"), "Workers of the variant that are in the state now."),
    Row(
        Gauge, "precision_load_seconds", V,
        "Reading and preparing the weights at the last start, the slowest worker's.",
    ),
    Row(
        Gauge, "precision_warmup_seconds", V,
        "Running every batch size once at the last start, the slowest worker's.",
    ),
    Row(
        Gauge, "precision_selftest_agreement_ratio", V,
        "Share of the bundled images with the stored fp32 answer at the last start, the worst worker's.",
    ),
    Row(
        Gauge, "precision_activation_peak_bytes", (*V, "batch_size"),
        "What a batch of this size needs beyond the resident weights, measured at warm-up. On a GPU an upper bound: "
        "that of the graph that it is padded to.",
    ),
    Row(
        Gauge, "precision_inference_clock_ratio", (*V, "device"),
        "CUDA events over the synchronised wall clock for whole batches at the last start; on a GPU only.",
    ),
    Row(Counter, "precision_shadow_agreement", (*V, "agree"), "Images also run through fp32, by same class or not."),
    Row(Histogram, "precision_shadow_logit_distance", V, "Largest |logit - fp32's logit| of such an image.", DISTANCES),
    Row(Counter, "precision_shadow_dropped", V, "Requests sampled for that while its worker was busy."),
    Row(Counter, "precision_worker_restarts", (*V, "reason"), "Workers lost and started again."),
)  # fmt: skip
MEMORY = Row(
    Gauge,
    "precision_memory_bytes",
    (*V, "kind"),
    "Memory of all worker processes of the variant now. rss counts shared pages in full, an upper bound; pss splits "
    "them among the processes that share them, an amortised share. On a GPU allocated, reserved are PyTorch's, the "
    "latter with what is free in it; process_gpu is the driver's number for the process, CUDA context included; "
    "device_used is everybody's: do not add it up.",
)
MODEL_KINDS = {"serialized": "serialized_bytes", "parameters": "parameter_bytes", "buffers": "buffer_bytes"}
INFO = ("device", "dtype", "backend", "checkpoint_sha256", "torch", "isa")
START_UP: dict[str, tuple[str, Callable[[Iterable[float]], float]]] = {
    "precision_load_seconds": ("load_seconds", max),
    "precision_warmup_seconds": ("warmup_seconds", max),
    "precision_selftest_agreement_ratio": ("selftest_agreement", min),
}
"""Metric -> field of a worker's info, and which worker's number stands for the variant."""


class Bound(NamedTuple):
    """What every request of one variant touches, found once: a look-up by labels costs more than counting."""

    requests: dict[str, Counter]
    in_flight: Gauge
    duration: Histogram
    phases: dict[str, Histogram]
    images: Counter
    batch_size: Histogram
    busy: Counter


class Metrics:
    """The registry and what may be told to it. `variants` are the names served; every child exists from the start.

    `failed_seconds` is each variant's part of the request duration that was spent on other outcomes than `ok`.
    """

    def __init__(self, variants: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        self.names = tuple(variants)
        self._metrics = {row.name: row.register(self.registry) for row in ROWS}
        self._child = cache(self._labelled)  # prometheus_client's own look-up takes a lock each time
        self._infos: dict[str, set[tuple[str, ...]]] = {}
        ProcessCollector(registry=self.registry)
        self._unknown: dict[str, Counter] = self._children("precision_requests", UNKNOWN, OUTCOMES)
        self._compared = {outcome: self._child("precision_compare_requests", outcome) for outcome in OUTCOMES}
        self.failed_seconds = dict.fromkeys(self.names, 0.0)
        for variant in self.names:
            self._create_children(variant)
        self._bound = {variant: self._bind(variant) for variant in self.names}

    def _labelled(self, name: str, *labels: str) -> Any:
        return self._metrics[name].labels(*labels)

    def _children(self, name: str, variant: str, values: Iterable[str]) -> dict[str, Any]:
        return {value: self._child(name, variant, value) for value in values}

    def _bind(self, variant: str) -> Bound:
        return Bound(
            requests=self._children("precision_requests", variant, OUTCOMES),
            in_flight=self._child("precision_requests_in_flight", variant),
            duration=self._child("precision_request_duration_seconds", variant),
            phases=self._children("precision_phase_duration_seconds", variant, PHASES),
            images=self._child("precision_images", variant),
            batch_size=self._child("precision_batch_size", variant),
            busy=self._child("precision_worker_busy_seconds", variant),
        )

    def _create_children(self, variant: str) -> None:
        for row in ROWS:
            if row.labels == V and row.name not in START_UP:  # a 0 there would be an agreement of 0, not "none yet"
                self._child(row.name, variant)
        second = {
            "precision_requests": OUTCOMES,
            "precision_phase_duration_seconds": PHASES,
            "precision_worker_restarts": ("died", "hung", "device_lost"),
            "precision_variant_state": STATES,
            "precision_workers": STATES,
            "precision_shadow_agreement": ("true", "false"),
        }
        for name, values in second.items():
            self._children(name, variant, values)
        self._child("precision_variant_state", variant, State.STARTING).set(1)

    def watch(
        self, queue_depths: Callable[[], dict[str, int]], workers: Callable[[], dict[str, list[Process]]]
    ) -> None:
        """Read queue depths and the workers' memory at every scrape."""
        for variant in self.names:
            read = partial(_look_up, queue_depths, variant)
            self._child("precision_queue_depth", variant).set_function(read)
        self.registry.register(_WorkerMemory(workers))

    def started(self, variant: str) -> None:
        """The headers of an HTTP prediction arrived."""
        if bound := self._bound.get(variant):
            bound.in_flight.inc()

    def ended(self, variant: str, outcome: str, seconds: float) -> None:
        """One HTTP prediction ended, whatever happened to it."""
        bound = self._bound.get(variant)
        if bound is None:
            self._unknown[outcome].inc()
            return
        bound.requests[outcome].inc()
        bound.in_flight.dec()
        bound.duration.observe(seconds)
        if outcome != "ok":
            self.failed_seconds[variant] += seconds

    def compared(self, outcome: str) -> None:
        """One comparison ended, whatever happened to it."""
        self._compared[outcome].inc()

    def answered(
        self, variant: str, info: WorkerInfo, images: int, phases: dict[str, float], memory_bytes: int
    ) -> None:
        """One prediction was answered by the worker of `info`; `phases` in seconds, one for each of PHASES."""
        bound = self._bound[variant]
        for phase, seconds in phases.items():
            bound.phases[phase].observe(seconds)
        bound.images.inc(images)
        self._child("precision_inference_duration_seconds", variant, info.device).observe(phases["inference"])
        memory = self._child("precision_inference_memory_bytes", variant, info.device, info.memory_kind)
        memory.observe(memory_bytes)

    def batch(self, variant: str, images: int, seconds: float) -> None:
        """A worker executed a batch, which kept it busy for `seconds`."""
        self._bound[variant].batch_size.observe(images)
        self._bound[variant].busy.inc(seconds)

    def shadow_compared(self, variant: str, agrees: Iterable[bool], distances: Iterable[float]) -> None:
        """Images of an answered request were run through fp32, too: same class or not, and how far the logits are."""
        for agree, distance in zip(agrees, distances, strict=True):
            self._child("precision_shadow_agreement", variant, str(agree).lower()).inc()
            self._child("precision_shadow_logit_distance", variant).observe(distance)

    def shadow_dropped(self, variant: str) -> None:
        """A request was sampled to be run through fp32, too, and was not."""
        self._child("precision_shadow_dropped", variant).inc()

    def restart(self, variant: str, reason: str) -> None:
        """A worker was lost: it `died`, `hung` or had its `device_lost`."""
        self._child("precision_worker_restarts", variant, reason).inc()

    def state(self, variant: str, state: State, workers: list[State], infos: list[WorkerInfo]) -> None:
        """A variant, or one of its workers, entered a state.

        Args:
            variant: its name.
            state: the variant's.
            workers: each worker's.
            infos: what the ready workers run; without any, what is known stays.
        """
        self._child("precision_variant_ready", variant).set(state == State.READY)
        for other in STATES:
            self._child("precision_variant_state", variant, other).set(state == other)
            self._child("precision_workers", variant, other).set(workers.count(other))
        if infos:
            self._describe(variant, infos)

    def _describe(self, variant: str, infos: list[WorkerInfo]) -> None:
        self._inform(variant, infos)
        for info in infos:
            self._child("precision_inference_duration_seconds", variant, info.device)
            self._child("precision_inference_memory_bytes", variant, info.device, info.memory_kind)
            if info.clock_ratio is not None:
                self._child("precision_inference_clock_ratio", variant, info.device).set(info.clock_ratio)
        for kind, field in MODEL_KINDS.items():
            self._child("precision_model_bytes", variant, kind).set(getattr(infos[0], field))
        for name, (field, of_all) in START_UP.items():
            self._child(name, variant).set(of_all(getattr(info, field) for info in infos))
        for size, peak in infos[0].activation_peaks.items():
            self._child("precision_activation_peak_bytes", variant, size).set(peak)

    def _inform(self, variant: str, workers: list[WorkerInfo]) -> None:
        """One series per device, the current one: queries join on it."""
        gauge = self._metrics["precision_variant_info"]
        infos = set({worker.device: tuple(str(getattr(worker, key)) for key in INFO) for worker in workers}.values())
        for info in self._infos.get(variant, set()) - infos:
            gauge.remove(variant, *info)
        for info in infos:
            gauge.labels(variant, *info).set(1)
        self._infos[variant] = infos

    def values(self, series: str, label: str, variant: str) -> dict[str, float]:
        """A variant's values of one series by another label; `series` is a name as the exposition has it."""
        families = self.registry.restricted_registry([series]).collect()
        samples = [sample for family in families for sample in family.samples]
        return {s.labels[label]: s.value for s in samples if s.name == series and s.labels["variant"] == variant}

    def value(self, series: str, variant: str) -> float:
        """A variant's value of a series without other labels."""
        return self.values(series, "variant", variant)[variant]

    def exposition(self) -> bytes:
        """The text format of everything, now."""
        return generate_latest(self.registry)


def _look_up(read: Callable[[], dict[str, int]], variant: str) -> float:
    return read()[variant]


class _WorkerMemory(Collector):
    """Memory of each variant's worker processes, read when scraped; a dead worker has no series."""

    def __init__(self, workers: Callable[[], dict[str, list[Process]]]) -> None:
        self._workers = workers

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(MEMORY.name, MEMORY.help, labels=MEMORY.labels)
        for variant, processes in self._workers().items():
            readings = [memory.read(process) for process in processes]
            for kind in {kind: None for reading in readings for kind in reading}:
                family.add_metric([variant, kind], sum(reading.get(kind, 0) for reading in readings))
        yield family

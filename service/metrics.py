"""The metrics of the service, and the only module that registers any.

The HTTP process counts everything: workers send their measurements with each answer. So no count is lost, doubled or
reset when a worker dies, and there is no multi-process directory.
"""

import asyncio
import itertools
from collections.abc import Callable, Iterable, Iterator
from functools import cache, partial
from typing import Any

from prometheus_client import CollectorRegistry, Counter, Gauge, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.process_collector import ProcessCollector
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

from service.histograms import Histogram, Series
from service.logs import UNKNOWN
from service.metric_rows import DROPPED, MEMORY, OUTCOMES, PHASES, ROWS, STATES, Row, V
from service.workers.death import Death
from service.workers.memory import Readings
from service.workers.status import State, WorkerInfo

__all__ = ["CONTENT_TYPE", "OUTCOMES", "PHASES", "STATES", "Metrics"]

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MODEL_KINDS = {"serialized": "serialized_bytes", "parameters": "parameter_bytes", "buffers": "buffer_bytes"}
STEP_SAMPLES = 50
"""Samples that are written in one step of a scrape: about a millisecond of the event loop."""
INFO = ("device", "dtype", "backend", "checkpoint_sha256", "torch", "isa")
START_UP: dict[str, tuple[str, Callable[[Iterable[float]], float]]] = {
    "precision_load_seconds": ("load_seconds", max),
    "precision_warmup_seconds": ("warmup_seconds", max),
    "precision_selftest_agreement_ratio": ("selftest_agreement", min),
}
"""Metric -> field of a worker's info, and which worker's number stands for the variant."""
SAMPLE: dict[str, tuple[str, Callable[[Iterable[float]], float]]] = {
    "precision_sample_accuracy_ratio": ("accuracy", min),
    "precision_sample_accuracy_suspect": ("is_suspect", max),
}
"""The same for a worker's accuracy on the sample, which not every network has."""


class Metrics:
    """The registry, and one method for each event that it observes. `variants` are the names of the served variants.

    `failed_seconds` is each variant's part of the request duration that was spent on other outcomes than `ok`.
    """

    def __init__(self, variants: Iterable[str]) -> None:
        self.registry = CollectorRegistry()
        self.names = tuple(variants)
        self._metrics = {row.name: _registered(row, self.registry) for row in ROWS}
        # labels() takes a lock and builds strings, so each child is looked up once.
        self._child = cache(self._labelled)
        self._infos: dict[str, set[tuple[str, ...]]] = {}
        self._memory: Readings | None = None
        self._collectors: list[Collector] = [*self._metrics.values(), ProcessCollector(registry=self.registry)]
        self.failed_seconds = dict.fromkeys(self.names, 0.0)
        for outcome in OUTCOMES:
            self._child("precision_requests", UNKNOWN, outcome)
            self._child("precision_compare_requests", outcome)
        for variant in self.names:
            self._create_children(variant)

    def _labelled(self, name: str, *labels: str) -> Any:
        return self._metrics[name].labels(*labels)

    def _create_children(self, variant: str) -> None:
        for row in ROWS:
            if row.labels == V and row.name not in START_UP | SAMPLE:  # a 0 there would read as a measurement
                self._child(row.name, variant)
            elif row.labels[0] == "variant":
                for value in row.values:
                    self._child(row.name, variant, value)
        self._child("precision_variant_state", variant, State.STARTING).set(1)

    def watch(
        self, queue_depths: Callable[[], dict[str, int]], memory: Readings, dropped_lines: Callable[[], int]
    ) -> None:
        """Show queue depths and lost log lines as they are at a scrape, and the workers' memory as it was last read."""
        for variant in self.names:
            read = partial(_look_up, queue_depths, variant)
            self._child("precision_queue_depth", variant).set_function(read)
        self._memory = memory
        for collector in (_WorkerMemory(memory), _DroppedLines(dropped_lines)):
            self._collectors.append(collector)
            self.registry.register(collector)

    def started(self, variant: str) -> None:
        """Observe that the headers of an HTTP prediction arrived."""
        if variant in self.names:
            self._child("precision_requests_in_flight", variant).inc()

    def ended(self, variant: str, outcome: str, seconds: float) -> None:
        """Observe that an HTTP prediction ended. Every prediction ends once, whatever happened to it."""
        if variant not in self.names:
            self._child("precision_requests", UNKNOWN, outcome).inc()
            return
        self._child("precision_requests_in_flight", variant).dec()
        self.ended_at_once(variant, outcome, seconds)

    def ended_at_once(self, variant: str, outcome: str, seconds: float) -> None:
        """Observe that an HTTP prediction of a served variant ended that was not observed to start."""
        self._child("precision_requests", variant, outcome).inc()
        self._child("precision_request_duration_seconds", variant).observe(seconds)
        if outcome != "ok":
            self.failed_seconds[variant] += seconds

    def compared(self, outcome: str) -> None:
        """Observe that a comparison ended. Every comparison ends once, whatever happened to it."""
        self._child("precision_compare_requests", outcome).inc()

    def answered(
        self, variant: str, info: WorkerInfo, images: int, phases: dict[str, float], memory_bytes: int
    ) -> None:
        """Observe that the engine of `info` answered a prediction. `phases` has the seconds of each of PHASES."""
        for phase, seconds in phases.items():
            self._child("precision_phase_duration_seconds", variant, phase).observe(seconds)
        self._child("precision_images", variant).inc(images)
        self._child("precision_inference_duration_seconds", variant, info.device).observe(phases["inference"])
        memory = self._child("precision_inference_memory_bytes", variant, info.device, info.memory_kind)
        memory.observe(memory_bytes)

    def batch(self, variant: str, images: int, seconds: float) -> None:
        """Observe that a worker executed a batch, which kept it busy for `seconds`."""
        self._child("precision_batch_size", variant).observe(images)
        self._child("precision_worker_busy_seconds", variant).inc(seconds)

    def shadow_compared(self, variant: str, agrees: Iterable[bool], distances: Iterable[float]) -> None:
        """Observe images of an answered request that fp32 ran too: same class or not, and the logit distance."""
        for agree, distance in zip(agrees, distances, strict=True):
            self._child("precision_shadow_agreement", variant, str(agree).lower()).inc()
            self._child("precision_shadow_logit_distance", variant).observe(distance)

    def shadow_dropped(self, variant: str) -> None:
        """Observe that a request was chosen to be run through fp32 too, and was not."""
        self._child("precision_shadow_dropped", variant).inc()

    def restart(self, variant: str, reason: str, death: Death | None) -> None:
        """Observe that a worker was lost: why (`died`, `hung` or `device_lost`), and how it died if it did."""
        self._child("precision_worker_restarts", variant, reason).inc()
        if death:
            self._child("precision_worker_deaths", variant, death.cause).inc()
            for kind, size in {"resident": death.resident_bytes, "limit": death.memory_limit_bytes}.items():
                if size:
                    self._child("precision_worker_death_bytes", variant, death.cause, kind).set(size)

    def state(self, variant: str, state: State, workers: list[State], infos: list[WorkerInfo]) -> None:
        """Observe that a variant, or one of its workers, entered a state.

        Args:
            variant: its name.
            state: the variant's state.
            workers: the state of each worker.
            infos: the engines of the ready workers. If the list is empty, the last description stays.
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
        if samples := [info.sample for info in infos if info.sample]:
            for name, (field, of_all) in SAMPLE.items():
                self._child(name, variant).set(of_all(getattr(sample, field) for sample in samples))
        for size, peak in infos[0].activation_peaks.items():
            self._child("precision_activation_peak_bytes", variant, size).set(peak)

    def _inform(self, variant: str, workers: list[WorkerInfo]) -> None:
        """Keep one info series per device, the current engine's, because queries join on it."""
        gauge = self._metrics["precision_variant_info"]
        infos = set({worker.device: tuple(str(getattr(worker, key)) for key in INFO) for worker in workers}.values())
        for info in self._infos.get(variant, set()) - infos:
            gauge.remove(variant, *info)
        for info in infos:
            gauge.labels(variant, *info).set(1)
        self._infos[variant] = infos

    def count(self, counter: str, variant: str, *labels: str) -> int:
        """Return the value of one series of a counter. `counter` is its row's name."""
        samples = [sample for family in self._child(counter, variant, *labels).collect() for sample in family.samples]
        return int(next(sample.value for sample in samples if sample.name == f"{counter}_total"))

    def total(self, histogram: str, variant: str, *labels: str) -> tuple[int, float]:
        """Return the count and the sum of one series of a histogram. `histogram` is its row's name."""
        series: Series = self._child(histogram, variant, *labels)
        return series.count, series.total

    async def exposition(self) -> bytes:
        """Return all current values in Prometheus's text format. Between two steps other tasks run.

        One family has the values of one moment; requests that end between two steps are in later families only.
        """
        if self._memory:
            await self._memory.refresh()
        pieces = []
        for collector in self._collectors:
            families = list(collector.collect())
            await asyncio.sleep(0)
            for piece in itertools.chain.from_iterable(map(_pieces, families)):
                pieces.append(piece)
                await asyncio.sleep(0)
        return b"".join(pieces)


def _pieces(family: Metric) -> Iterator[bytes]:
    """Yield the text of a family in pieces. The library writes the creation times of its series as a gauge."""
    created = f"{family.name}_created"
    times = [sample for sample in family.samples if sample.name == created]
    values = [sample for sample in family.samples if sample.name != created]
    yield from _slices(Metric(family.name, family.documentation, family.type), values)
    if times:
        yield from _slices(Metric(created, family.documentation, "gauge"), times)


def _slices(family: Metric, samples: list[Sample]) -> Iterator[bytes]:
    """Yield the heading of a family without samples, then the lines of STEP_SAMPLES samples at a time."""
    heading = generate_latest(_Collected(family))
    yield heading
    for first in range(0, len(samples), STEP_SAMPLES):
        family.samples = samples[first : first + STEP_SAMPLES]
        yield generate_latest(_Collected(family)).removeprefix(heading)


class _Collected(Collector):
    """A family that was collected before."""

    def __init__(self, family: Metric) -> None:
        self._family = family

    def collect(self) -> Iterable[Metric]:
        return [self._family]


def _registered(row: Row, registry: CollectorRegistry) -> Any:
    if row.kind == "histogram":
        histogram = Histogram(row)
        registry.register(histogram)
        return histogram
    return {"counter": Counter, "gauge": Gauge}[row.kind](row.name, row.help, row.labels, registry=registry)


def _look_up(read: Callable[[], dict[str, int]], variant: str) -> float:
    return read()[variant]


class _WorkerMemory(Collector):
    """Memory of each variant's worker processes, as it was last read. A dead worker has no series."""

    def __init__(self, memory: Readings) -> None:
        self._memory = memory

    def collect(self) -> Iterator[Metric]:
        family = GaugeMetricFamily(MEMORY.name, MEMORY.help, labels=MEMORY.labels)
        for variant, kinds in self._memory.totals().items():
            for kind, size in kinds.items():
                family.add_metric([variant, kind], size)
        yield family


class _DroppedLines(Collector):
    """The number of log lines that were lost."""

    def __init__(self, dropped_lines: Callable[[], int]) -> None:
        self._dropped_lines = dropped_lines

    def collect(self) -> Iterator[Metric]:
        yield CounterMetricFamily(DROPPED.name, DROPPED.help, self._dropped_lines())

"""Traces (`--traces`): a span per prediction, with a child per phase, from the numbers that /metrics observes.

OpenTelemetry's SDK is an extra that only this module imports. Its own variables say where spans go (docs/metrics.md).
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from service import __version__
from service.errors import REASONS
from service.prediction import Prediction

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
"""Most seconds that the end of the service waits until the last spans are sent."""
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
Placed = tuple[str, float, float]
"""A phase's name, begin and end, by `time.perf_counter()`."""


class TracingUnavailable(Exception):
    """Traces were asked for and cannot be sent; the text says what to do."""


def provider() -> "TracerProvider":
    """Return the SDK's provider. Its own thread sends spans in batches; if its queue is full, spans are dropped.

    Raises:
        TracingUnavailable: the extra is not installed, or an `OTEL_*` variable asks for a protocol that is not there.
    """
    try:
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415 - an extra
        from opentelemetry.sdk.resources import OTELResourceDetector, Resource  # noqa: PLC0415
        from opentelemetry.sdk.trace import TracerProvider  # noqa: PLC0415
        from opentelemetry.sdk.trace.export import BatchSpanProcessor  # noqa: PLC0415
    except ImportError as error:
        raise TracingUnavailable(
            f"--traces needs OpenTelemetry's SDK ({error}): pip install 'precision-service[tracing]'"
        ) from None
    for name in PROTOCOLS:
        if os.environ.get(name, PROTOCOL) != PROTOCOL:
            raise TracingUnavailable(f"--traces sends {PROTOCOL} only, and {name} is {os.environ[name]!r}")
    named = {"service.name": "precision-service", "service.version": __version__}
    made = TracerProvider(
        resource=Resource.create(named | dict(OTELResourceDetector().detect().attributes)), shutdown_on_exit=False
    )
    made.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    return made


class Tracing:
    """Makes the spans of predictions that ended. It works after the answer, and its errors fail no request."""

    def __init__(self, made: "TracerProvider") -> None:
        from opentelemetry import propagate, trace  # noqa: PLC0415 - reads OTEL_PROPAGATORS when it is imported

        self._provider = made
        self._tracer = made.get_tracer("service", __version__)
        self._extract = propagate.extract
        self._within = trace.set_span_in_context
        self._server, self._error = trace.SpanKind.SERVER, trace.Status(trace.StatusCode.ERROR)

    def __call__(self, prediction: Prediction, outcome: str, seconds: float) -> None:
        """Make the spans of a prediction that ended, once its answer is on its way."""
        asyncio.get_running_loop().call_soon(self._trace, prediction, outcome, seconds)

    def _trace(self, prediction: Prediction, outcome: str, seconds: float) -> None:
        try:
            self._make_spans(prediction, outcome, seconds)
        except Exception:
            logger.exception("a trace was lost")

    def _make_spans(self, prediction: Prediction, outcome: str, seconds: float) -> None:
        epoch, began = time.time_ns() - time.perf_counter_ns(), prediction.began

        def at(reading: float) -> int:
            return epoch + int(reading * 1e9)

        span = self._tracer.start_span(
            f"{prediction.request.method} {route_of(prediction)}",
            self._extract(prediction.request.headers),
            self._server,
            attributes_of(prediction, outcome),
            start_time=at(began),
        )
        if span.is_recording():
            within = self._within(span)
            for name, start, end in placed(prediction):
                self._tracer.start_span(name, within, start_time=at(start)).end(at(end))
            if outcome != "ok" and REASONS[outcome].status >= 500:
                span.set_status(self._error)
        span.end(at(began + seconds))

    def close(self) -> None:
        """Send the spans that are left, or give them up after FLUSH_SECONDS."""
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(FLUSH_SECONDS)


def route_of(prediction: Prediction) -> str:
    """Return the path of a prediction with its parameters by name."""
    path: str = prediction.request.scope["path"]
    return "/v2/models/{model}/infer" if path.startswith("/v2/") else "/predict/{variant}"


def attributes_of(prediction: Prediction, outcome: str) -> dict[str, Any]:
    """Return the span's attributes, named by OpenTelemetry's conventions for HTTP where these have a name."""
    attributes = {
        "http.request.method": prediction.request.method,
        "http.route": route_of(prediction),
        "http.response.status_code": 200 if outcome == "ok" else REASONS[outcome].status,
        "precision.variant": prediction.variant,
        "precision.outcome": outcome,
        "precision.images": prediction.images,
        "precision.request_id": prediction.id,
    }
    return attributes if outcome == "ok" else attributes | {"error.type": outcome}


def placed(prediction: Prediction) -> Iterator[Placed]:
    """Give the phases that a prediction got to, each at its time; the worker's once per batch of the critical path.

    `other` has no place: it is the time between the phases.
    """
    phases, path = prediction.phases, prediction.path
    yield from _in_a_row(prediction.began, receive=phases.receive, decode=phases.decode)
    if not path:
        return
    if phases.queue is not None:
        yield "queue", path[0].started - phases.queue, path[0].started
    for result in path:
        yield from _in_a_row(
            result.started, copy_in=result.copy_in, inference=result.inference, copy_out=result.copy_out
        )
    yield from _in_a_row(path[-1].computed, deliver=phases.deliver, encode=phases.encode)


def _in_a_row(begin: float, **phases: float | None) -> Iterator[Placed]:
    """Give phases that follow each other from `begin` on; those without a duration did not happen."""
    for name, seconds in phases.items():
        if seconds is not None:
            yield name, begin, begin + seconds
            begin += seconds

"""Traces, where they are asked for: a span per prediction, a child per phase, from the numbers that /metrics observes.

OpenTelemetry's SDK is an extra, imported here only. Its own variables say where spans go (docs/metrics.md).
"""

import asyncio
import logging
import os
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from starlette.requests import Request

from service import __version__
from service.errors import REASONS
from service.workers.wire import Result

if TYPE_CHECKING:
    from opentelemetry.sdk.trace import TracerProvider

logger = logging.getLogger(__name__)

FLUSH_SECONDS = 5.0
"""How long the end of the service waits for the last spans to be sent."""
PROTOCOLS = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
PROTOCOL = "http/protobuf"
Phase = tuple[str, float, float]
"""Name, begin and end, by `time.perf_counter()`."""


class TracingUnavailable(Exception):
    """Traces were asked for, and cannot be sent; the text says what to do."""


def provider() -> "TracerProvider":
    """Sends spans in batches from a thread of its own, as the `OTEL_*` variables say; a full queue drops.

    Raises:
        TracingUnavailable: the extra is not installed, or a variable cannot be followed.
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
    """Makes the spans of predictions that ended. It works after the answer, and nothing in it can fail a request."""

    def __init__(self, made: "TracerProvider") -> None:
        from opentelemetry import propagate, trace  # noqa: PLC0415 - reads OTEL_PROPAGATORS when it is imported

        self._provider = made
        self._tracer = made.get_tracer("service", __version__)
        self._extract = propagate.extract
        self._within = trace.set_span_in_context
        self._server, self._error = trace.SpanKind.SERVER, trace.Status(trace.StatusCode.ERROR)

    def __call__(self, request: Request, variant: str, outcome: str, seconds: float) -> None:
        """A prediction ended; its spans are made once its answer is on its way."""
        asyncio.get_running_loop().call_soon(self._trace, request, variant, outcome, seconds)

    def _trace(self, *ended: Any) -> None:
        try:
            self._make_spans(*ended)
        except Exception:
            logger.exception("a trace was lost")

    def _make_spans(self, request: Request, variant: str, outcome: str, seconds: float) -> None:
        epoch, began = time.time_ns() - time.perf_counter_ns(), request.state.began

        def at(reading: float) -> int:
            return epoch + int(reading * 1e9)

        span = self._tracer.start_span(
            f"{request.method} {route_of(request)}",
            self._extract(request.headers),
            self._server,
            attributes_of(request, variant, outcome),
            start_time=at(began),
        )
        if span.is_recording():
            within = self._within(span)
            for name, start, end in placed(began, request.state.phases, request.state.results):
                self._tracer.start_span(name, within, start_time=at(start)).end(at(end))
            if outcome != "ok" and REASONS[outcome].status >= 500:
                span.set_status(self._error)
        span.end(at(began + seconds))

    def close(self) -> None:
        """Send what is left, or give it up after FLUSH_SECONDS."""
        last = threading.Thread(target=self._provider.shutdown, name="last-spans", daemon=True)
        last.start()
        last.join(FLUSH_SECONDS)


def route_of(request: Request) -> str:
    """The path of a prediction with its parameters by name."""
    return "/v2/models/{model}/infer" if request.scope["path"].startswith("/v2/") else "/predict/{variant}"


def attributes_of(request: Request, variant: str, outcome: str) -> dict[str, Any]:
    """By OpenTelemetry's conventions for HTTP where it has a name for it."""
    state = request.state
    attributes = {
        "http.request.method": request.method,
        "http.route": route_of(request),
        "http.response.status_code": 200 if outcome == "ok" else REASONS[outcome].status,
        "precision.variant": variant,
        "precision.outcome": outcome,
        "precision.images": state.images,
        "precision.request_id": state.request_id,
    }
    return attributes if outcome == "ok" else attributes | {"error.type": outcome}


def placed(began: float, phases: Mapping[str, float], results: Sequence[Result]) -> Iterator[Phase]:
    """The phases that a request got to, each at its place, the worker's once per batch; `other` lies between them."""
    now = began
    for name in ("receive", "decode"):
        if name in phases:
            yield name, now, (now := now + phases[name])
    if not results:
        return
    yield "queue", results[0].started - phases["queue"], results[0].started
    for result in results:
        now = result.started
        for name in ("copy_in", "inference", "copy_out"):
            yield name, now, (now := now + getattr(result, name))
    now = max([result.computed for result in results])
    for name in ("deliver", "encode"):
        if name in phases:
            yield name, now, (now := now + phases[name])

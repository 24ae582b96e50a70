"""A real service sends real spans to a collector: they show what /metrics observes, and they delay nobody."""

import asyncio
import logging
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from opentelemetry.proto.trace.v1.trace_pb2 import Span, Status
from opentelemetry.sdk.trace import TracerProvider
from starlette.requests import Request

from service.metrics import PHASES
from service.prediction import Prediction
from service.tracing import FLUSH_SECONDS, Tracing
from tests.service import fakes
from tests.service.collector import Collector, attributes, collecting, seconds
from tests.service.pictures import png, solid
from tests.service.processes import ROOT, Service, eventually, running, until

SPANS = PHASES[:-1]
CALLER = "00f067aa0ba902b7"
FLAGS = ("--variants", "int8", "--max-batch-size", "2", "--traces")


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as collector:
        yield collector


@pytest.fixture(scope="module")
def service(collector: Collector) -> Iterator[Service]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        patch.setenv("OTEL_BSP_SCHEDULE_DELAY", "50")
        patch.setenv("OTEL_RESOURCE_ATTRIBUTES", "deployment.environment.name=test")
        with running(*FLAGS, module="tests.service.fakes") as service:
            yield service


def post(service: Service, path: str, body: bytes, kind: str = "image/png", flags: str = "01") -> tuple[str, Any]:
    """Send a request within a trace of the caller; return the trace's id and the answer."""
    trace_id = f"{post.count:032x}"  # type: ignore[attr-defined]
    post.count += 1  # type: ignore[attr-defined]
    headers = {"content-type": kind, "traceparent": f"00-{trace_id}-{CALLER}-{flags}", "x-request-id": trace_id}
    return trace_id, service.client.post(path, content=body, headers=headers)


post.count = 1  # type: ignore[attr-defined]


def arrived(collector: Collector, trace_id: str) -> tuple[Span, list[Span]]:
    """Wait for a prediction's span, which is sent last, and return it with its children in time order."""
    until(lambda: any(span.kind == Span.SPAN_KIND_SERVER for span in collector.trace(trace_id)), what="trace")
    spans = collector.trace(trace_id)
    (root,) = [span for span in spans if span.kind == Span.SPAN_KIND_SERVER]
    return root, sorted((span for span in spans if span is not root), key=lambda span: span.start_time_unix_nano)


def test_a_prediction_is_a_span_with_a_child_per_phase(service: Service, collector: Collector) -> None:
    """It continues the caller's trace, and its attributes tell the request, its outcome and the service."""
    trace_id, answer = post(service, "/predict/int8", png(3))
    assert answer.status_code == 200
    root, children = arrived(collector, trace_id)
    assert (root.name, root.parent_span_id.hex()) == ("POST /predict/{variant}", CALLER)
    assert attributes(root) == {
        "http.request.method": "POST", "http.route": "/predict/{variant}", "http.response.status_code": 200,
        "precision.variant": "int8", "precision.outcome": "ok", "precision.images": 1,
        "precision.request_id": trace_id,
    }  # fmt: skip
    assert [child.name for child in children] == list(SPANS)
    assert {child.parent_span_id for child in children} == {root.span_id}
    resource = attributes(collector.received[0].resource)
    assert resource["service.name"] == "precision-service"
    assert resource["deployment.environment.name"] == "test"


def test_phases_lie_one_after_the_other_within_the_request(service: Service, collector: Collector) -> None:
    """No phase begins before the one before it ended, up to 1 us of rounding, by the clock of the machine."""
    before = time.time_ns()
    trace_id, _ = post(service, "/predict/int8", png(3))
    after = time.time_ns()
    root, children = arrived(collector, trace_id)
    borders = [root.start_time_unix_nano]
    for child in children:
        borders += [child.start_time_unix_nano, child.end_time_unix_nano]
    borders.append(root.end_time_unix_nano)
    assert [late for early, late in pairwise(borders) if late < early - 1000] == []
    assert before - 1e6 < root.start_time_unix_nano < root.end_time_unix_nano < after + 1e6


def test_spans_are_what_the_metrics_observe(service: Service, collector: Collector) -> None:
    """Over all answered predictions of this service, the spans of each phase add up to its histogram's sum."""
    traces = [post(service, "/predict/int8", png(value))[0] for value in range(5)]
    for trace_id in traces:
        arrived(collector, trace_id)
    spans = collector.spans
    answered = {span.span_id for span in spans if attributes(span).get("precision.outcome") == "ok"}
    for phase in SPANS:
        found = [seconds(span) for span in spans if span.name == phase and span.parent_span_id in answered]
        observed = service.sample("precision_phase_duration_seconds_sum", variant="int8", phase=phase)
        assert sum(found) == pytest.approx(observed, abs=1e-6 * len(found))


def test_a_split_request_has_the_workers_spans_of_each_batch(service: Service, collector: Collector) -> None:
    """5 images in batches of 2 make three forward passes, one after the other, which add up to the phase."""
    body = np.stack([solid(value) for value in range(5)]).tobytes()
    trace_id, answer = post(service, "/predict/int8", body, "application/octet-stream")
    root, children = arrived(collector, trace_id)
    assert attributes(root)["precision.images"] == 5
    expected = dict.fromkeys(SPANS, 1) | dict.fromkeys(("copy_in", "inference", "copy_out"), 3)
    assert Counter(child.name for child in children) == expected
    forward = [child for child in children if child.name == "inference"]
    assert sum(map(seconds, forward)) == pytest.approx(answer.json()["timing"]["inference_seconds"], abs=1e-6)
    assert all(a.end_time_unix_nano <= b.start_time_unix_nano for a, b in pairwise(forward))


@pytest.mark.parametrize(
    ("path", "body", "outcome", "status", "is_error", "phases"),
    [
        ("/predict/int8", b"no image", "not_an_image", 400, False, []),
        ("/predict/nonsense", png(1), "unknown_variant", 404, False, []),
        ("/predict/nonsense?top_k=0", png(1), "unacceptable", 422, False, []),
        ("/predict/int8", png(fakes.RAISE), "internal", 500, True, ["receive", "decode"]),
    ],
)
def test_a_failure_is_a_span_with_the_phases_that_it_reached(
    service: Service, collector: Collector, path: str, body: bytes, outcome: str, status: int, is_error: bool,
    phases: list[str],
) -> None:  # fmt: skip
    """It has the word of the error table. Its status is an error only if the service, not the client, made it."""
    root, children = arrived(collector, post(service, path, body)[0])
    found = attributes(root)
    assert (found["precision.outcome"], found["http.response.status_code"], found["error.type"]) == (
        outcome, status, outcome,
    )  # fmt: skip
    assert (root.status.code == Status.STATUS_CODE_ERROR) is is_error
    assert "nonsense" not in str(root)
    assert [child.name for child in children] == phases


def test_an_inference_of_the_open_protocol_is_a_prediction(service: Service, collector: Collector) -> None:
    """It has a span, as it counts in the metrics as a prediction. A comparison does not, and has none."""
    compared, _ = post(service, "/compare", png(1))
    headers = {"inference-header-content-length": "0", "content-type": "image/png"}
    trace_id = "f" * 32
    headers["traceparent"] = f"00-{trace_id}-{CALLER}-01"
    service.client.post("/v2/models/resnet18-int8/infer", content=png(1), headers=headers)
    root, children = arrived(collector, trace_id)
    assert (root.name, [child.name for child in children]) == ("POST /v2/models/{model}/infer", list(SPANS))
    assert collector.trace(compared) == []


def test_a_caller_who_does_not_sample_gets_no_span(service: Service, collector: Collector) -> None:
    """The flag in `traceparent` decides, as OTEL_TRACES_SAMPLER's default says."""
    silent, _ = post(service, "/predict/int8", png(1), flags="00")
    arrived(collector, post(service, "/predict/int8", png(1))[0])
    assert collector.trace(silent) == []


@pytest.mark.parametrize("given", [{}, {"traceparent": "00-nonsense-01"}, {"traceparent": "é" * 600}], ids=len)
def test_without_a_usable_traceparent_a_trace_begins(
    service: Service, collector: Collector, given: dict[str, str]
) -> None:
    """A header that cannot be read is ignored."""
    request_id = f"begins-{post.count}"  # type: ignore[attr-defined]
    post.count += 1  # type: ignore[attr-defined]
    encoded = {name: value.encode() for name, value in given.items()}
    headers = {"content-type": "image/png", "x-request-id": request_id} | encoded
    assert service.client.post("/predict/int8", content=png(1), headers=headers).status_code == 200

    def mine() -> list[Span]:
        return [span for span in collector.spans if attributes(span).get("precision.request_id") == request_id]

    (root,) = until(mine, what="trace")
    assert root.parent_span_id == b""


def test_a_collector_that_does_not_answer_delays_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """More requests than fit the queue of spans are answered, and the service ends in time with exit code 0."""
    with collecting() as collector:
        collector.go_on.clear()
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        for name, value in (("SCHEDULE_DELAY", "20"), ("MAX_QUEUE_SIZE", "30"), ("MAX_EXPORT_BATCH_SIZE", "10")):
            monkeypatch.setenv(f"OTEL_BSP_{name}", value)
        with running(*FLAGS, module="tests.service.fakes", log=subprocess.DEVNULL) as service:
            service.client.post("/predict/int8", content=png(1), headers={"content-type": "image/png"})
            until(lambda: collector.posts, what="post that is held")
            statuses = [post(service, "/predict/int8", png(1))[1].status_code for _ in range(30)]
            assert statuses == [200] * 30
            assert collector.spans == []
            began = time.monotonic()
            assert service.stop() == 0
            assert time.monotonic() - began < FLUSH_SECONDS + 10


def test_spans_that_are_left_are_sent_at_the_end(monkeypatch: pytest.MonkeyPatch) -> None:
    """A span that waits for its batch when the service stops is sent before the end."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", f"{collector.url}/v1/traces")
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "600000")
        with running(*FLAGS, module="tests.service.fakes") as service:
            trace_id, _ = post(service, "/predict/int8", png(1))
            assert collector.posts == 0
            assert service.stop() == 0
        assert len(collector.trace(trace_id)) == 1 + len(SPANS)


def test_without_the_flag_nothing_is_sent_or_imported(monkeypatch: pytest.MonkeyPatch) -> None:
    """The variables alone trace nothing: they may be set for other programs on the machine."""
    with collecting() as collector:
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", collector.url)
        monkeypatch.setenv("OTEL_BSP_SCHEDULE_DELAY", "20")
        with running("--variants", "int8", module="tests.service.fakes") as service:
            post(service, "/predict/int8", png(1))
        assert collector.posts == 0
    code = "import service.server, sys; sys.exit('opentelemetry.sdk' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], cwd=ROOT, check=False).returncode == 0


def start(code: str) -> subprocess.CompletedProcess[str]:
    code += "\nfrom service.__main__ import main\nmain(['--port', '0', '--traces', '--variants', 'int8'])"
    return subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=120, check=False
    )


@pytest.mark.parametrize("missing", ["opentelemetry.sdk", "opentelemetry.exporter"])
def test_a_missing_extra_stops_the_start(missing: str) -> None:
    """One line that says what to install; the service without `--traces` needs none of it."""
    done = start(f"import sys; sys.modules[{missing!r}] = None")
    assert done.returncode == 1
    assert "pip install 'precision-service[tracing]'" in done.stderr
    assert "Traceback" not in done.stderr


def test_another_protocol_stops_the_start(monkeypatch: pytest.MonkeyPatch) -> None:
    """The service speaks OTLP over HTTP only, so a variable that asks for gRPC stops the start with a sentence."""
    monkeypatch.setenv("OTEL_EXPORTER_OTLP_PROTOCOL", "grpc")
    done = start("")
    assert done.returncode == 1
    assert "error: --traces sends http/protobuf only, and OTEL_EXPORTER_OTLP_PROTOCOL is 'grpc'" in done.stderr


def test_what_goes_wrong_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    """A span that cannot be made is logged; the caller, who is answered by then, notices nothing."""
    prediction = Prediction(None, Request({"type": "http"}), "int8", "an id", 0.0)  # a request without a method

    async def scenario() -> None:
        Tracing(TracerProvider(shutdown_on_exit=False))(prediction, "ok", 0.1)
        await eventually(lambda: "a trace was lost" in caplog.text)

    caplog.set_level(logging.ERROR)
    asyncio.run(scenario())
    assert caplog.text.count("a trace was lost") == 1

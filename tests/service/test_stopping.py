"""The end of the service: requests in flight are answered, no process is left, and idleness costs nothing."""

import signal
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
import psutil
import pytest

from tests.service import fakes
from tests.service.pictures import png
from tests.service.processes import Service, is_running, running, until

FAKES = "tests.service.fakes"
PNG = {"content-type": "image/png"}
V2_RAW = {"inference-header-content-length": "0"}


@pytest.fixture
def service() -> Iterator[Service]:
    with running("--variants", "fp32", "--hang-timeout", "2", module=FAKES) as service:
        yield service


def post(service: Service, value: int, variant: str = "fp32") -> httpx.Response:
    return httpx.post(f"{service.url}/predict/{variant}", content=png(value), headers=PNG, timeout=30)


def test_idle_costs_no_cpu(service: Service) -> None:
    """Neither the HTTP process nor the worker polls: in a second without requests both use next to no CPU time."""
    processes = [psutil.Process(service.process.pid), service.worker()]

    def used() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    before = used()
    time.sleep(1)  # the interval that is measured
    assert used() - before < 0.05


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_answers_what_is_in_flight_and_leaves_nothing(number: signal.Signals) -> None:
    """The exit code is 0, the stalled request gets its 200, and no process is left. The worker gets the signal, too."""
    with running("--variants", "fp32", module=FAKES) as service, ThreadPoolExecutor(1) as pool:
        stalled = pool.submit(post, service, fakes.STALL)
        until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="stalled batch")
        service.worker().send_signal(number)
        assert service.stop(number) == 0
        assert stalled.result().status_code == 200


def test_a_request_that_outlasts_the_drain_is_told_so() -> None:
    """On every route the answer is a 503 problem with Retry-After, not a plain 500: the client may ask elsewhere."""
    paths = ("/predict/fp32", "/v2/models/resnet18-fp32/infer", "/compare")
    with running("--variants", "fp32", "--drain-timeout", "1", module=FAKES) as service, ThreadPoolExecutor(4) as pool:
        held = pool.submit(post, service, fakes.HANG)
        until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="batch that hangs")
        send = partial(httpx.post, content=png(1), headers=PNG | V2_RAW, timeout=30)
        waiting = [pool.submit(send, service.url + path) for path in paths]
        until(lambda: service.sample("precision_queue_depth", variant="fp32") == 3, what="requests that wait")
        assert service.stop() == 0
        for answer in (held.result(), *(request.result() for request in waiting)):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "shutting down" in answer.text


def test_workers_do_not_outlive_a_killed_service() -> None:
    """After kill -9 of the HTTP process its workers end by themselves."""
    with running("--variants", "fp32", module=FAKES) as service:
        worker = service.worker()
        service.process.kill()
        service.process.wait()
        until(lambda: not is_running(worker), what="the worker's end")


def test_sigterm_under_load_loses_no_answer() -> None:
    """16 clients send until the service is gone: it answers every request that it accepted, with 200 or 503."""

    def client(number: int) -> tuple[list[int], str]:
        statuses: list[int] = []
        with httpx.Client(base_url=service.url, timeout=60) as own:
            while True:
                try:
                    statuses.append(own.post("/predict/fp32", content=png(number), headers=PNG).status_code)
                except httpx.TransportError as error:
                    return statuses, str(error)

    with running("--variants", "fp32", module=FAKES) as service, ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(client, number) for number in range(16)]
        until(lambda: service.outcomes("fp32").get("ok", 0) > 50, what="load")
        assert service.stop() == 0
    results = [answer.result() for answer in answers]
    assert {status for statuses, _ in results for status in statuses} <= {200, 503}
    assert {end for _, end in results if "incomplete" in end} == set()

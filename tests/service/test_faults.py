"""Engines that raise, hang or end, full queues, clients that go away: all are answered, and the counts add up."""

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx
import pytest

from tests.service import fakes
from tests.service.pictures import png, solid
from tests.service.processes import Service, running, until

FAKES = "tests.service.fakes"
RAW = {"content-type": "application/octet-stream"}
PNG = {"content-type": "image/png"}


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Return a service whose worker these tests lose three times; a fifth loss within 30 s would last a minute."""
    with running("--variants", "fp32", "--hang-timeout", "2", module=FAKES) as service:
        yield service


def post(service: Service, value: int, variant: str = "fp32") -> httpx.Response:
    return httpx.post(f"{service.url}/predict/{variant}", content=png(value), headers=PNG, timeout=60)


def test_a_raising_engine_fails_only_the_request_that_made_it_raise(service: Service) -> None:
    """Requests that shared a batch with a poisonous one are run again without it."""
    before = service.outcomes("fp32")
    values = [fakes.STALL, 1, 2, fakes.RAISE, 3, fakes.UNPICKLABLE, 4]
    with ThreadPoolExecutor(len(values)) as pool:
        answers = list(pool.map(lambda value: post(service, value), values))
    statuses = {value: answer.status_code for value, answer in zip(values, answers, strict=True)}
    assert statuses == {fakes.STALL: 200, 1: 200, 2: 200, fakes.RAISE: 500, 3: 200, fakes.UNPICKLABLE: 500, 4: 200}
    assert [a.json()["predictions"][0]["class_index"] for a in answers if a.status_code == 200] == [4, 1, 2, 3, 4]
    assert service.outcomes("fp32", since=before) == {"ok": 5, "internal": 2}


def post_together(service: Service, values: list[int]) -> list[httpx.Response]:
    """Return the answers to requests that wait while the worker is busy, so that they share its next batch."""
    with ThreadPoolExecutor(len(values) + 1) as pool:
        pool.submit(post, service, fakes.STALL)
        until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="stalled batch")
        return list(pool.map(lambda value: post(service, value), values))


def test_logits_that_are_no_numbers_fail_only_their_request(service: Service) -> None:
    """With NaN for one image of a shared batch, its request ends in non_finite and the others are answered."""
    before = service.outcomes("fp32")
    answers = post_together(service, [1, fakes.NAN, 2])
    assert [answer.status_code for answer in answers] == [200, 500, 200]
    assert answers[1].json()["type"].endswith(":non_finite")
    assert "not finite for 1 of 1 images" in answers[1].json()["detail"]
    assert service.outcomes("fp32", since=before) == {"ok": 3, "non_finite": 1}


def test_a_batch_that_does_not_fit_is_run_in_parts(service: Service) -> None:
    """Requests that together exceed the device's memory are answered one by one; the worker stays."""
    worker = service.worker().pid
    answers = post_together(service, [fakes.CROWDED, 1, 2])
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert service.worker().pid == worker


def test_a_request_that_does_not_fit_alone_says_so(service: Service) -> None:
    """The request gets 503 out_of_memory with the engine's sentence; the same worker answers the next request."""
    before = service.outcomes("fp32")
    worker, pixels = service.worker().pid, solid(fakes.CROWDED).tobytes() * 2
    answer = service.client.post("/predict/fp32", content=pixels, headers=RAW)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["type"].endswith(":out_of_memory")
    assert answer.json()["detail"] == "no memory, as told"
    assert post(service, 3).status_code == 200
    assert service.worker().pid == worker
    assert service.outcomes("fp32", since=before) == {"ok": 1, "out_of_memory": 1}


def test_a_lost_device_gets_a_new_worker(service: Service) -> None:
    """Every request of the batch gets 503 device_lost at once; another process takes over, and the restart says why."""
    before = service.outcomes("fp32")
    first = service.worker().pid
    answers = post_together(service, [fakes.LOST, 1])
    assert [answer.status_code for answer in answers] == [503, 503]
    assert {answer.json()["type"].rsplit(":")[-1] for answer in answers} == {"device_lost"}
    assert answers[0].headers["retry-after"] == "1"
    until(lambda: service.state("fp32") == "ready" and post(service, 7).status_code == 200, what="recovery")
    assert service.worker().pid != first
    assert service.sample("precision_worker_restarts_total", variant="fp32", reason="device_lost") == 1
    assert service.outcomes("fp32", since=before) == {"ok": 2, "device_lost": 2}


def test_an_engine_error_says_nothing_of_the_inside(service: Service) -> None:
    """A bug in the engine is a 500 without traceback or path."""
    answer = post(service, fakes.RAISE)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text


@pytest.mark.parametrize(("command", "reason"), [(fakes.DIE, "died"), (fakes.HANG, "hung")])
def test_a_lost_worker_fails_what_it_held_and_comes_back(service: Service, command: int, reason: str) -> None:
    """The request in hand gets 503 worker_lost, the variant answers again, the restart is counted."""
    before = service.outcomes("fp32")
    answer = post(service, command)
    assert (answer.status_code, answer.json()["type"].rsplit(":")[-1]) == (503, "worker_lost")
    assert answer.headers["retry-after"] == "1"
    until(lambda: service.state("fp32") == "ready" and post(service, 7).status_code == 200, what="recovery")
    assert service.sample("precision_worker_restarts_total", variant="fp32", reason=reason) == 1
    assert service.outcomes("fp32", since=before) == {"worker_lost": 1, "ok": 1}


def test_a_full_queue_refuses_at_once() -> None:
    """Past max_waiting_images a request gets 503 overloaded with Retry-After; the queued ones are answered.

    A request with a query is refused on the usual way of predictions, with the same answer.
    """
    four = solid(1).tobytes() * 4
    flags = ("--variants", "fp32", "--max-waiting-images", "8", "--max-batch-size", "4")
    with running(*flags, module=FAKES) as service, ThreadPoolExecutor(3) as pool:
        url, worker = f"{service.url}/predict/fp32", service.worker()
        worker.suspend()
        try:
            held = pool.submit(post, service, 1)
            until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="held batch")
            queued = [pool.submit(httpx.post, url, content=four, headers=RAW, timeout=60) for _ in range(2)]
            until(lambda: service.sample("precision_queue_depth", variant="fp32") == 8, what="full queue")
            named = PNG | {"X-Request-ID": "mine"}
            refused, usual = (
                service.client.post(f"/predict/fp32{query}", content=png(1), headers=named)
                for query in ("", "?top_k=1")
            )
        finally:
            worker.resume()
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert (refused.json(), refused.headers.keys()) == (usual.json(), usual.headers.keys())
        assert [answer.result().status_code for answer in (held, *queued)] == [200, 200, 200]
        assert service.outcomes("fp32") == {"ok": 3, "overloaded": 2}


def test_a_client_may_ask_for_an_earlier_deadline(service: Service) -> None:
    """X-Request-Timeout is a number of seconds; other values are refused."""
    for header, status in (("0.2", 504), ("5", 200), ("soon", 400)):
        content, headers = png(fakes.STALL), PNG | {"x-request-timeout": header}
        assert service.client.post("/predict/fp32", content=content, headers=headers).status_code == status


def test_a_client_that_goes_away_is_not_computed(service: Service) -> None:
    """Its images leave the queue, and it is counted once, as client_closed."""
    images, before = service.sample("precision_batch_size_sum", variant="fp32"), service.outcomes("fp32")
    with ThreadPoolExecutor(1) as pool:
        stalled = pool.submit(post, service, fakes.STALL)
        until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="stalled batch")
        body = solid(1).tobytes()
        where = urlsplit(service.url)
        with socket.create_connection((where.hostname, where.port)) as raw:
            raw.sendall(
                b"POST /predict/fp32 HTTP/1.1\r\nHost: x\r\nContent-Type: application/octet-stream\r\n"
                b"Content-Length: %d\r\n\r\n%b" % (len(body), body)
            )
            until(lambda: service.sample("precision_queue_depth", variant="fp32") == 1, what="queued image")
        until(lambda: service.outcomes("fp32", since=before).get("client_closed") == 1, what="client_closed")
        assert stalled.result().status_code == 200
    assert service.sample("precision_batch_size_sum", variant="fp32") == images + 1


def test_a_slow_batch_of_one_variant_does_not_hold_up_another() -> None:
    """While fp32 is busy with a slow request of 40 images, int8 answers."""
    slow = solid(fakes.STALL).tobytes() * 40
    with running("--variants", "fp32,int8", module=FAKES) as service, ThreadPoolExecutor(1) as pool:
        held = pool.submit(httpx.post, f"{service.url}/predict/fp32", content=slow, headers=RAW, timeout=30)
        until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="slow request")
        assert post(service, 3, "int8").status_code == 200
        assert not held.done()
        assert held.result().status_code == 200

"""Workers that are killed, hang or raise, full queues, clients that go away: all are answered, the counts add up."""

import asyncio
import errno
import os
import signal
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import NoReturn
from urllib.parse import urlsplit

import httpx
import psutil
import pytest

from service.settings import Settings
from service.workers import supervisor
from service.workers.pool import Pool, Unobserved
from tests.service import fakes
from tests.service.pictures import png, solid
from tests.service.processes import Service, running, until

FAKES = "tests.service.fakes"
RAW = {"content-type": "application/octet-stream"}
PNG = {"content-type": "image/png"}
V2_RAW = {"inference-header-content-length": "0"}


@pytest.fixture
def service() -> Iterator[Service]:
    with running("--variants", "fp32", "--hang-timeout", "2", module=FAKES) as service:
        yield service


def post(service: Service, value: int, variant: str = "fp32") -> httpx.Response:
    return httpx.post(f"{service.url}/predict/{variant}", content=png(value), headers=PNG, timeout=30)


def test_a_raising_engine_fails_only_the_request_that_made_it_raise(service: Service) -> None:
    """Requests that shared a batch with a poisonous one are run again without it."""
    values = [fakes.STALL, 1, 2, fakes.RAISE, 3, fakes.UNPICKLABLE, 4]
    with ThreadPoolExecutor(len(values)) as pool:
        answers = list(pool.map(lambda value: post(service, value), values))
    statuses = {value: answer.status_code for value, answer in zip(values, answers, strict=True)}
    assert statuses == {fakes.STALL: 200, 1: 200, 2: 200, fakes.RAISE: 500, 3: 200, fakes.UNPICKLABLE: 500, 4: 200}
    assert [a.json()["predictions"][0]["class_index"] for a in answers if a.status_code == 200] == [4, 1, 2, 3, 4]
    assert service.outcomes("fp32") == {"ok": 5, "internal": 2}


def post_together(service: Service, values: list[int]) -> list[httpx.Response]:
    """Return the answers to requests that wait while the worker is busy, so that they share its next batch."""
    with ThreadPoolExecutor(len(values) + 1) as pool:
        pool.submit(post, service, fakes.STALL)
        until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="stalled batch")
        return list(pool.map(lambda value: post(service, value), values))


def test_logits_that_are_no_numbers_fail_only_their_request(service: Service) -> None:
    """NaN for one image of a shared batch: that request ends in non_finite, the others are answered."""
    answers = post_together(service, [1, fakes.NAN, 2])
    assert [answer.status_code for answer in answers] == [200, 500, 200]
    assert answers[1].json()["type"].endswith(":non_finite")
    assert "not finite for 1 of 1 images" in answers[1].json()["detail"]
    assert service.outcomes("fp32") == {"ok": 3, "non_finite": 1}


def test_a_batch_that_does_not_fit_is_run_in_parts(service: Service) -> None:
    """Requests that together exceed the device's memory are answered one by one; the worker stays."""
    worker = service.worker().pid
    answers = post_together(service, [fakes.CROWDED, 1, 2])
    assert [answer.status_code for answer in answers] == [200, 200, 200]
    assert service.worker().pid == worker


def test_a_request_that_does_not_fit_alone_says_so(service: Service) -> None:
    """503 out_of_memory with what the engine said; the next request is answered by the same worker."""
    worker, pixels = service.worker().pid, solid(fakes.CROWDED).tobytes() * 2
    answer = service.client.post("/predict/fp32", content=pixels, headers=RAW)
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "1")
    assert answer.json()["type"].endswith(":out_of_memory")
    assert answer.json()["detail"] == "no memory, as told"
    assert post(service, 3).status_code == 200
    assert service.worker().pid == worker
    assert service.outcomes("fp32") == {"ok": 1, "out_of_memory": 1}


def test_a_lost_device_gets_a_new_worker(service: Service) -> None:
    """Every request of the batch gets 503 device_lost at once; another process takes over, and the restart says why."""
    first = service.worker().pid
    answers = post_together(service, [fakes.LOST, 1])
    assert [answer.status_code for answer in answers] == [503, 503]
    assert {answer.json()["type"].rsplit(":")[-1] for answer in answers} == {"device_lost"}
    assert answers[0].headers["retry-after"] == "1"
    until(lambda: service.state("fp32") == "ready" and post(service, 7).status_code == 200, what="recovery")
    assert service.worker().pid != first
    assert service.sample("precision_worker_restarts_total", variant="fp32", reason="device_lost") == 1
    assert service.outcomes("fp32") == {"ok": 2, "device_lost": 2}


def test_an_engine_error_says_nothing_of_the_inside(service: Service) -> None:
    """A bug is a 500 without traceback or path."""
    answer = post(service, fakes.RAISE)
    assert answer.headers["content-type"] == "application/problem+json"
    assert "Traceback" not in answer.text
    assert ".py" not in answer.text


@pytest.mark.parametrize(("command", "reason"), [(fakes.DIE, "died"), (fakes.HANG, "hung")])
def test_a_lost_worker_fails_what_it_held_and_comes_back(service: Service, command: int, reason: str) -> None:
    """The request in hand gets 503 worker_lost, the variant answers again, the restart is counted."""
    answer = post(service, command)
    assert (answer.status_code, answer.json()["type"].rsplit(":")[-1]) == (503, "worker_lost")
    assert answer.headers["retry-after"] == "1"
    until(lambda: service.state("fp32") == "ready" and post(service, 7).status_code == 200, what="recovery")
    assert service.sample("precision_worker_restarts_total", variant="fp32", reason=reason) == 1
    outcomes = service.outcomes("fp32")
    assert outcomes["worker_lost"] == 1
    assert outcomes["ok"] == 1


def test_a_worker_killed_under_load_loses_only_its_own_requests(service: Service) -> None:
    """kill -9 while 16 clients send: all are answered, 200 or 503, and the counters say exactly what they got."""

    def client(number: int) -> list[int]:
        with httpx.Client(base_url=service.url, timeout=60) as own:
            return [own.post("/predict/fp32", content=png(number), headers=PNG).status_code for _ in range(25)]

    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(client, number) for number in range(16)]
        until(lambda: service.outcomes("fp32").get("ok", 0) > 50, what="load")
        os.kill(service.worker().pid, signal.SIGKILL)
        statuses = [status for answer in answers for status in answer.result()]
    assert len(statuses) == 400
    assert set(statuses) <= {200, 503}
    outcomes = service.outcomes("fp32")
    assert outcomes["ok"] == statuses.count(200)
    assert sum(outcomes.values()) == 400


def test_a_stopped_worker_is_noticed_and_replaced(service: Service) -> None:
    """SIGSTOP: the request it held gets 503 after the hang timeout, a new worker takes over."""
    stopped = service.worker()
    stopped.suspend()
    assert post(service, 1).status_code == 503
    until(lambda: service.state("fp32") == "ready" and post(service, 1).status_code == 200, what="recovery")
    assert not stopped.is_running()


def test_an_idle_workers_death_costs_no_request(service: Service) -> None:
    """A worker that dies while it holds nothing is replaced without a failed prediction."""
    first = service.worker().pid
    os.kill(first, signal.SIGKILL)
    until(lambda: service.sample("precision_worker_restarts_total", variant="fp32") == 1, what="restart")
    until(lambda: service.state("fp32") == "ready", what="recovery")
    assert post(service, 3).status_code == 200
    assert service.outcomes("fp32") == {"ok": 1}


def test_a_full_queue_refuses_at_once() -> None:
    """Past max_waiting_images requests get 503 overloaded with Retry-After; those queued are answered."""
    four = solid(1).tobytes() * 4
    flags = ("--variants", "fp32", "--max-waiting-images", "8", "--max-batch-size", "4")
    with running(*flags, module=FAKES) as service, ThreadPoolExecutor(3) as pool:
        stalled = pool.submit(post, service, fakes.STALL)
        until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="stalled batch")
        url = f"{service.url}/predict/fp32"
        queued = [pool.submit(httpx.post, url, content=four, headers=RAW, timeout=30) for _ in range(2)]
        until(lambda: service.sample("precision_queue_depth", variant="fp32") == 8, what="full queue")
        refused = service.client.post("/predict/fp32", content=png(1), headers=PNG)
        assert (refused.status_code, refused.headers["retry-after"]) == (503, "1")
        assert [answer.result().status_code for answer in (stalled, *queued)] == [200, 200, 200]
        assert service.outcomes("fp32") == {"ok": 3, "overloaded": 1}


def test_a_deadline_is_honoured_before_compute() -> None:
    """A request that waited too long gets 504 and is not executed."""
    with running("--variants", "fp32", "--request-timeout", "0.3", module=FAKES) as service:
        with ThreadPoolExecutor(2) as pool:
            stalled = pool.submit(post, service, fakes.STALL)
            until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="stalled batch")
            waited = pool.submit(post, service, 1)
            assert (stalled.result().status_code, waited.result().status_code) == (504, 504)
        until(lambda: service.sample("precision_batch_size_count", variant="fp32") == 1, what="the stalled batch's end")
        assert post(service, 2).status_code == 200
        assert service.sample("precision_batch_size_sum", variant="fp32") == 2


def test_a_client_may_ask_for_an_earlier_deadline(service: Service) -> None:
    """X-Request-Timeout in seconds; what is no number is refused."""
    for header, status in (("0.2", 504), ("5", 200), ("soon", 400)):
        content, headers = png(fakes.STALL), PNG | {"x-request-timeout": header}
        assert service.client.post("/predict/fp32", content=content, headers=headers).status_code == status


def test_a_client_that_goes_away_is_not_computed(service: Service) -> None:
    """Its images leave the queue, and it is counted once, as client_closed."""
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
        until(lambda: service.outcomes("fp32").get("client_closed") == 1, what="client_closed")
        assert stalled.result().status_code == 200
    assert service.sample("precision_batch_size_sum", variant="fp32") == 1


def test_a_variant_that_never_starts_leaves_the_others_serving() -> None:
    """Its route says why it failed, not where on the disk; readiness is 503; the other variant answers."""
    with running("--variants", "fp32,int8-dynamic", module=FAKES, ready=False) as service:
        until(lambda: service.state("int8-dynamic") == "failed" and service.state("fp32") == "ready", what="states")
        answer = post(service, 1, "int8-dynamic")
        assert answer.status_code == 503
        assert "RuntimeError: weights: this fake never starts" in answer.json()["detail"]
        assert post(service, 1).status_code == 200
        assert service.client.get("/health/ready").status_code == 503


def test_a_variant_that_dies_at_every_start_is_given_up() -> None:
    """After a few starts with growing pauses it is `failed` with the reason; the other variant serves all the while."""
    with running("--variants", "fp32,fp32-cpu", module=FAKES, ready=False) as service:
        until(lambda: service.state("fp32") == "ready", what="the healthy variant")
        assert post(service, 1).status_code == 200
        until(lambda: service.state("fp32-cpu") == "failed", 120, "failed")
        answer = post(service, 1, "fp32-cpu")
        assert (answer.status_code, "starts in a row" in answer.json()["detail"]) == (503, True)
        assert service.sample("precision_worker_restarts_total", variant="fp32-cpu", reason="died") == 5
        assert post(service, 1).status_code == 200


def test_idle_costs_no_cpu(service: Service) -> None:
    """Neither the HTTP process nor the worker polls: in a second without requests both use next to no CPU time."""
    processes = [psutil.Process(service.process.pid), service.worker()]

    def used() -> float:
        return sum(sum(process.cpu_times()[:2]) for process in processes)

    before = used()
    time.sleep(1)  # the interval that is measured
    assert used() - before < 0.05


def test_sigterm_answers_what_is_in_flight_and_leaves_nothing() -> None:
    """Exit code 0, the stalled request gets its 200, no process is left."""
    with running("--variants", "fp32", module=FAKES) as service, ThreadPoolExecutor(1) as pool:
        stalled = pool.submit(post, service, fakes.STALL)
        until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="stalled batch")
        assert service.stop() == 0
        assert stalled.result().status_code == 200


@pytest.mark.parametrize("path", ["/predict/fp32", "/v2/models/resnet18-fp32/infer", "/compare"])
def test_a_request_that_outlasts_the_drain_is_told_so(path: str) -> None:
    """503 with a problem, not a plain 500: it is safe to ask elsewhere."""
    with running("--variants", "fp32", "--drain-timeout", "1", module=FAKES) as service, ThreadPoolExecutor(2) as pool:
        held = pool.submit(post, service, fakes.HANG)
        until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="batch that hangs")
        waiting = pool.submit(httpx.post, service.url + path, content=png(1), headers=PNG | V2_RAW, timeout=30)
        until(lambda: service.sample("precision_queue_depth", variant="fp32") == 1, what="request that waits")
        assert service.stop() == 0
        for answer in (held.result(), waiting.result()):
            assert (answer.status_code, answer.headers["retry-after"]) == (503, "5")
            assert "shutting down" in answer.text


def test_a_shortage_of_processes_is_waited_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A worker that cannot be started (no process, no memory) is tried again, and never given up for that."""
    monkeypatch.setattr(supervisor, "SHORTAGE_SECONDS", 0.0)
    shortage = OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))
    attempts: list[socket.socket] = []
    enough = asyncio.Event()

    def spawn(link: socket.socket) -> NoReturn:
        attempts.append(link)
        if len(attempts) == 2 * supervisor.MAX_FAILURES:
            enough.set()
        raise shortage

    async def scenario() -> None:
        pool = Pool("int8", Settings(), [spawn], Unobserved())
        task = asyncio.create_task(pool.supervise())
        await asyncio.wait_for(enough.wait(), 30)
        assert not task.done()
        assert (pool.state, pool.reason) == ("starting", f"no worker could be started: {shortage}")
        task.cancel()

    asyncio.run(scenario())
    assert all(link.fileno() == -1 for link in attempts)  # closed, or each attempt would leave one


def test_workers_do_not_outlive_a_killed_service() -> None:
    """kill -9 of the HTTP process: its workers end by themselves."""
    with running("--variants", "fp32", module=FAKES) as service:
        worker = service.worker()
        service.process.kill()
        service.process.wait()
        until(lambda: not worker.is_running() or worker.status() == "zombie", what="the worker's end")


def test_sigterm_under_load_loses_no_answer() -> None:
    """16 clients send until the service is gone: what it accepted it answered, with 200 or 503, and it exits with 0."""

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


def test_a_slow_batch_of_one_variant_does_not_hold_up_another() -> None:
    """While fp32 is busy with a slow request of 40 images, int8 answers."""
    slow = solid(fakes.STALL).tobytes() * 40
    with running("--variants", "fp32,int8", module=FAKES) as service, ThreadPoolExecutor(1) as pool:
        held = pool.submit(httpx.post, f"{service.url}/predict/fp32", content=slow, headers=RAW, timeout=30)
        until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="slow request")
        assert post(service, 3, "int8").status_code == 200
        assert not held.done()
        assert held.result().status_code == 200


def test_two_workers_share_a_variant_and_its_cores() -> None:
    """Each has cores of its own, and when one is killed in the middle of a request the other goes on answering."""
    with running("--variants", "fp32", "--workers", "2", module=FAKES) as service, ThreadPoolExecutor(1) as pool:
        until(lambda: service.sample("precision_workers", variant="fp32", state="ready") == 2, what="both workers")
        first, second = service.workers()
        if len(os.sched_getaffinity(0)) > 1:
            assert not set(first.cpu_affinity()) & set(second.cpu_affinity())
        stalled = pool.submit(post, service, fakes.STALL)
        until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="stalled batch")
        assert post(service, 1).status_code == 200
        first.kill()
        until(lambda: service.sample("precision_worker_restarts_total", variant="fp32") == 1, what="notice")
        assert {post(service, value).status_code for value in range(10)} == {200}
        assert stalled.result().status_code in (200, 503)  # 503 if the killed worker held it, and either may have
        until(lambda: len(service.workers()) == 2, what="a new worker")

"""Workers that are killed, stopped or never start: nobody else is affected, and the counts add up."""

import os
import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from tests.service import fakes
from tests.service.pictures import png
from tests.service.processes import Service, is_running, running, until

FAKES = "tests.service.fakes"
PNG = {"content-type": "image/png"}
DIED = {"variant": "fp32", "reason": "died"}


@pytest.fixture(scope="module")
def shared() -> Iterator[Service]:
    """Return a service whose worker these tests lose three times; a fifth loss within 30 s would last a minute."""
    with running("--variants", "fp32", "--hang-timeout", "2", module=FAKES) as service:
        yield service


@pytest.fixture
def service(shared: Service) -> Service:
    """Return the service, its worker ready again."""
    until(lambda: shared.state("fp32") == "ready", what="recovery")
    return shared


@pytest.fixture(scope="module")
def limping() -> Iterator[Service]:
    """Return a service with one variant that works, one that refuses to load and one that dies at each start."""
    with running("--variants", "fp32,int8-dynamic,fp32-cpu", module=FAKES, ready=False) as service:
        until(lambda: service.state("fp32") == "ready", what="the healthy variant")
        yield service


def post(service: Service, value: int, variant: str = "fp32") -> httpx.Response:
    return httpx.post(f"{service.url}/predict/{variant}", content=png(value), headers=PNG, timeout=30)


def test_a_worker_killed_under_load_loses_only_its_own_requests(service: Service) -> None:
    """16 clients get 200, or 503 until another worker is ready; the counters agree with what they got."""

    def client(number: int) -> list[int]:
        with httpx.Client(base_url=service.url, timeout=60) as own:
            return [own.post("/predict/fp32", content=png(number), headers=PNG).status_code for _ in range(25)]

    before = service.outcomes("fp32")
    with ThreadPoolExecutor(16) as pool:
        answers = [pool.submit(client, number) for number in range(16)]
        until(lambda: service.outcomes("fp32", since=before).get("ok", 0) > 50, what="load")
        os.kill(service.worker().pid, signal.SIGKILL)
        statuses = [status for answer in answers for status in answer.result()]
    assert len(statuses) == 400
    assert set(statuses) <= {200, 503}
    outcomes = service.outcomes("fp32", since=before)
    assert outcomes["ok"] == statuses.count(200)
    assert sum(outcomes.values()) == 400


def test_a_stopped_worker_is_noticed_and_replaced(service: Service) -> None:
    """After SIGSTOP the request in hand gets 503 past the hang timeout, and a new worker takes over."""
    stopped = service.worker()
    stopped.suspend()
    assert post(service, 1).status_code == 503
    until(lambda: service.state("fp32") == "ready" and post(service, 1).status_code == 200, what="recovery")
    assert not is_running(stopped)


def test_an_idle_workers_death_costs_no_request(service: Service) -> None:
    """A worker that dies while it holds nothing is replaced without a failed prediction; signal and size are known."""
    before, restarts = service.outcomes("fp32"), service.sample("precision_worker_restarts_total", **DIED)
    os.kill(service.worker().pid, signal.SIGKILL)
    until(lambda: service.sample("precision_worker_restarts_total", **DIED) == restarts + 1, what="restart")
    until(lambda: service.state("fp32") == "ready", what="recovery")
    assert post(service, 3).status_code == 200
    assert service.outcomes("fp32", since=before) == {"ok": 1}
    assert service.sample("precision_worker_deaths_total", variant="fp32", cause="SIGKILL") > 0
    assert service.sample("precision_worker_death_bytes", variant="fp32", kind="resident") > 10 * 2**20
    (card,) = service.client.get("/variants").json()["variants"]
    assert (card["last_death"]["cause"], card["last_death"]["exit_code"]) == ("SIGKILL", -9)


def test_a_variant_that_never_starts_leaves_the_others_serving(limping: Service) -> None:
    """Its route says why it failed, not where on the disk; readiness is 503; another variant answers."""
    until(lambda: limping.state("int8-dynamic") == "failed", what="failed")
    answer = post(limping, 1, "int8-dynamic")
    assert answer.status_code == 503
    assert "RuntimeError: weights: this fake never starts" in answer.json()["detail"]
    assert post(limping, 1).status_code == 200
    assert limping.client.get("/health/ready").status_code == 503


def test_a_variant_that_dies_at_every_start_is_given_up(limping: Service) -> None:
    """After a few starts with growing pauses it is `failed` with the reason; another variant serves all the while."""
    assert post(limping, 1).status_code == 200
    until(lambda: limping.state("fp32-cpu") == "failed", 120, "failed")
    answer = post(limping, 1, "fp32-cpu")
    assert (answer.status_code, "starts in a row" in answer.json()["detail"]) == (503, True)
    assert "it exited with status 4" in answer.json()["detail"]
    assert limping.sample("precision_worker_restarts_total", variant="fp32-cpu", reason="died") == 5
    assert limping.sample("precision_worker_deaths_total", variant="fp32-cpu", cause="exit") == 5
    assert post(limping, 1).status_code == 200


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

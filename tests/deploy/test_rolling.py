"""Replicas are replaced and one is killed under load, behind a real HAProxy and without a balancer."""

import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, ExitStack
from itertools import cycle
from pathlib import Path

import pytest

from benchmarks.wrk import free_port
from tests.deploy.rolling import Load, Upload, balancer
from tests.service.processes import Service, running, until

STOPS = 10
DELAY_SECONDS = 1.0
"""A little more than HAProxy needs to see that a replica is not ready."""
LAG_SECONDS = 3.0
"""The time after SIGTERM in which Kubernetes may still send new connections."""


def replica(port: int = 0, delay: float = DELAY_SECONDS) -> AbstractContextManager[Service]:
    """Run a service with fake engines."""
    flags = ("--variants", "fp32", "--shutdown-delay", str(delay), "--port", str(port), "--log-level", "warning")
    return running(*flags, module="tests.service.fakes")


@pytest.mark.timeout(900)  # it starts twelve services, for which a busy machine takes minutes
@pytest.mark.needs("haproxy")
def test_no_request_is_lost_while_replicas_are_replaced(tmp_path: Path) -> None:
    """None fails in ten stops. After kill -9 only requests fail that were in flight, the large uploads among them.

    HAProxy cannot send an upload again. It may also close a kept connection without an answer, which tells its client
    to send the request again.
    """
    ports = [free_port() for _ in range(4)]
    following = cycle(ports)
    with ExitStack() as stack, balancer(ports, tmp_path) as url, ThreadPoolExecutor(1) as stopper:
        replicas = [stack.enter_context(replica(next(following))) for _ in range(2)]
        with Load(url, clients=12) as load:
            stops = []
            for _ in range(STOPS):
                replicas.append(stack.enter_context(replica(next(following))))
                stops.append(stopper.submit(replicas.pop(0).stop))
            assert [stop.result() for stop in stops] == [0] * STOPS
            assert load.failures() == []
            rolled = len(load.requests)

            uploads = [Upload(url) for _ in range(6)]
            until(lambda: sum(map(in_flight, replicas)) >= len(uploads), what="uploads in flight")
            before = time.monotonic()
            replicas[0].process.kill()
            replicas[0].process.wait()
            after = time.monotonic()
            lost = [upload.finish() for upload in uploads].count(False)
            until(lambda: len(load.requests) > rolled + 500, what="requests after the kill")
    failures = load.failures()
    assert [request for request in failures if request.began > after or request.ended < before] == []
    assert 0 < lost < len(uploads)
    print(f"none of {rolled} requests failed in {STOPS} stops; at kill -9 {lost} of {len(uploads)} uploads failed,")
    print(f"and of {len(load.requests) - rolled} other requests {len(failures)}: {failures}")


def in_flight(service: Service) -> float:
    return service.sample("precision_requests_in_flight", variant="fp32")


def test_new_connections_are_served_while_endpoints_lag() -> None:
    """Without a balancer, no request fails of clients that go on for three seconds after SIGTERM."""
    with replica(delay=LAG_SECONDS + 1) as service:
        with Load(service.url, clients=12) as load:
            until(lambda: len(load.requests) > 100, what="load")
            told = time.monotonic()
            service.process.send_signal(signal.SIGTERM)
            until(lambda: service.client.get("/health/ready").status_code == 503, LAG_SECONDS, "readiness of 503")
            until(lambda: load.requests[-1].began > told + LAG_SECONDS, what="requests after the lag")
        assert service.process.wait(30) == 0
    assert load.failures() == []
    assert len([request for request in load.requests if request.began > told]) > 100

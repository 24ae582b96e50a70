"""Shadows compare answered requests with the reference, and nobody who waits for an answer notices them."""

import asyncio
import errno
import multiprocessing
import os
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import NoReturn

import numpy as np
import psutil
import pytest

from common import machine
from service.errors import ServiceError
from service.server import build_server
from service.settings import Settings
from service.shadow import Shadow
from service.workers.launch import MOST_SHADOW_IMAGES, NICENESS
from service.workers.queue import Answer
from tests.service import fakes
from tests.service.pictures import solid
from tests.service.processes import Service, eventually, running, until

PATIENCE = 300
"""Seconds: the background worker starts when the machine has time to spare."""
RAW = {"content-type": "application/octet-stream"}
needs_idle_scheduling = pytest.mark.skipif(not hasattr(os, "SCHED_IDLE"), reason="the system has no idle scheduling")
PIXELS, LOGITS = np.zeros((12, 3, 32, 32), np.uint8), np.eye(12, 10, dtype=np.float32)


@pytest.fixture(scope="module")
def service() -> Iterator[Service]:
    """Return a service whose background worker is up: it has compared one image, and nothing is under way."""
    with running("--variants", "fp32,int8", "--shadow-share", "1", module="tests.service.fakes") as service:
        until(lambda: post(service, "int8", 1) and compared(service, "true"), PATIENCE, "a background worker")
        until(lambda: settled(service), what="the last shadow")
        yield service


def post(service: Service, variant: str, *values: int) -> int:
    body = np.stack([solid(value) for value in values]).tobytes()
    return service.client.post(f"/predict/{variant}", content=body, headers=RAW).status_code


def compared(service: Service, agree: str) -> float:
    return service.sample("precision_shadow_agreement_total", variant="int8", agree=agree)


def dropped(service: Service) -> float:
    return service.sample("precision_shadow_dropped_total", variant="int8")


def settled(service: Service) -> bool:
    """Return whether every request so far, of one image each, was compared or dropped."""
    return service.outcomes("int8")["ok"] == compared(service, "true") + dropped(service)


def test_agreement_is_counted_by_image(service: Service) -> None:
    """One of three images differs, by 5 in its logits; requests to fp32 itself are not compared."""
    same, different, requests = compared(service, "true"), compared(service, "false"), service.outcomes("fp32")
    distance = service.sample("precision_shadow_logit_distance_sum", variant="int8")
    batches = service.sample("precision_batch_size_count", variant="fp32")
    assert post(service, "int8", 1, fakes.DIFFER, 3) == 200
    until(lambda: compared(service, "true") + compared(service, "false") == same + different + 3, what="shadow")
    assert (compared(service, "true"), compared(service, "false")) == (same + 2, different + 1)
    assert service.sample("precision_shadow_logit_distance_sum", variant="int8") == distance + 5
    assert service.outcomes("fp32") == requests
    assert post(service, "fp32", 1) == 200
    assert service.sample("precision_shadow_agreement_total", variant="fp32", agree="true") == 0
    assert service.sample("precision_batch_size_count", variant="fp32") == batches + 1


@needs_idle_scheduling
def test_a_shadow_delays_nobody(service: Service) -> None:
    """While a shadow has no answer yet, fp32 and int8 answer; a request sampled meanwhile is dropped and counted."""
    before, lost = compared(service, "true"), dropped(service)
    (background,) = (one for one in service.workers() if os.sched_getscheduler(one.pid) == os.SCHED_IDLE)
    background.suspend()
    try:
        assert post(service, "int8", 2) == 200
        assert post(service, "fp32", 1) == 200
        assert post(service, "int8", 1) == 200
        assert (compared(service, "true"), dropped(service)) == (before, lost + 1)
    finally:
        background.resume()
    until(lambda: compared(service, "true") == before + 1, what="the suspended shadow")


@needs_idle_scheduling
def test_the_worker_in_the_background_has_only_idle_time(service: Service) -> None:
    """All threads of that worker, and none of the other two, have idle priority; its memory is in the metrics."""
    policies = [{os.sched_getscheduler(thread.id) for thread in worker.threads()} for worker in service.workers()]
    assert sorted(policies, key=str) == [{os.SCHED_OTHER}, {os.SCHED_OTHER}, {os.SCHED_IDLE}]
    assert service.sample("precision_memory_bytes", variant="shadow", kind="pss") > 2**20


def test_workers_on_the_cpu_are_nicer_than_the_http_process(service: Service) -> None:
    """The process that all requests go through gets a core before the threads that compute."""
    own = psutil.Process(service.process.pid).nice()
    assert {worker.nice() for worker in service.workers()} == {own + NICENESS}


@pytest.mark.skipif(not Path("/proc/self/oom_score").exists(), reason="the system has no such score")
def test_the_kernel_kills_a_worker_before_the_http_process(service: Service) -> None:
    """If memory runs out, the service loses a batch and says why, and does not end."""
    scores = {
        process.pid: int(Path(f"/proc/{process.pid}/oom_score").read_text())
        for process in (psutil.Process(service.process.pid), *service.workers())
    }
    assert scores.pop(service.process.pid) < min(scores.values())


def test_a_worker_that_cannot_be_put_in_the_background_is_not_left_running(monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take time from workers that somebody waits for, so it is ended, and counts as one that died."""

    def refuse(pid: int) -> NoReturn:
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(machine, "yield_to_others", refuse)
    background = build_server(Settings(variants=("int8",), shadow_share=1), api=fakes.FakeAPI).background
    assert background is not None

    async def scenario() -> None:
        supervision = asyncio.create_task(background.supervise())
        await eventually(lambda: background.reason)
        supervision.cancel()
        await asyncio.gather(supervision, return_exceptions=True)

    asyncio.run(scenario())
    assert background.reason == "the shadow's worker cannot be put in the background: [Errno 1] Operation not permitted"
    assert not multiprocessing.active_children()


def test_int8_alone_has_a_reference_too() -> None:
    """The background worker runs the reference, which is not served."""
    with running("--variants", "int8", "--shadow-share", "1", module="tests.service.fakes") as service:
        until(lambda: post(service, "int8", 1) and compared(service, "true"), PATIENCE, "a background worker")
        assert [row["variant"] for row in service.client.get("/variants").json()["variants"]] == ["int8"]


class Recorder:
    """Stands for the metrics: keeps what was compared, and how often a request was dropped."""

    def __init__(self) -> None:
        self.agrees: list[bool] = []
        self.dropped = 0

    def shadow_compared(self, variant: str, agrees: list[bool], distances: list[float]) -> None:
        self.agrees += agrees

    def shadow_dropped(self, variant: str) -> None:
        self.dropped += 1


class Reference:
    """Stands for the reference's pool: it is idle and accepts requests, or refuses them all; tests answer them."""

    is_idle = True

    def __init__(self, refusal: ServiceError | None = None) -> None:
        self.refusal = refusal
        self.entries: list[SimpleNamespace] = []

    def submit(self, pixels: np.ndarray, timeout: float) -> list[SimpleNamespace]:
        if self.refusal:
            raise self.refusal
        self.entries.append(SimpleNamespace(images=len(pixels), answer=asyncio.get_running_loop().create_future()))
        return self.entries[-1:]


def offer(recorder: Recorder, reference: Reference, share: float = 1) -> Shadow:
    shadow = Shadow(share, reference, recorder, 1.0)
    shadow.offer("int8", PIXELS, LOGITS)
    return shadow


def test_one_at_a_time_and_bounded() -> None:
    """Of 12 images the first 8 run; another request meanwhile is dropped; the next after the answer runs."""

    async def scenario() -> None:
        recorder, reference = Recorder(), Reference()
        shadow = offer(recorder, reference)
        shadow.offer("int8", PIXELS, LOGITS)
        await eventually(lambda: recorder.dropped == 1)
        assert [entry.images for entry in reference.entries] == [MOST_SHADOW_IMAGES]
        result = SimpleNamespace(logits=LOGITS[:MOST_SHADOW_IMAGES])
        reference.entries[0].answer.set_result(Answer(result, MOST_SHADOW_IMAGES, fakes.worker_info("fp32")))
        await eventually(lambda: recorder.agrees == [True] * MOST_SHADOW_IMAGES)
        shadow.offer("int8", PIXELS, LOGITS)
        await eventually(lambda: len(reference.entries) == 2)
        assert recorder.dropped == 1

    asyncio.run(scenario())


def test_a_reference_that_refuses_is_a_drop() -> None:
    """The refusal reaches nobody."""

    async def scenario() -> None:
        recorder = Recorder()
        offer(recorder, Reference(ServiceError("starting", "not yet")))
        await eventually(lambda: recorder.dropped == 1)
        assert recorder.agrees == []

    asyncio.run(scenario())


def test_a_reference_that_is_lost_is_a_drop() -> None:
    """The error reaches nobody, and the next shadow may start."""

    async def scenario() -> None:
        recorder, reference = Recorder(), Reference()
        shadow = offer(recorder, reference)
        await eventually(lambda: reference.entries)
        reference.entries[0].answer.set_exception(ServiceError("worker_lost", "gone"))
        await eventually(lambda: recorder.dropped == 1)
        shadow.offer("int8", PIXELS, LOGITS)
        await eventually(lambda: len(reference.entries) == 2)
        assert recorder.agrees == []

    asyncio.run(scenario())


def test_a_share_is_a_share() -> None:
    """Of 2000 requests at 10 %, 200 give or take 7 standard deviations are sampled; at 0, none."""

    async def scenario(share: float) -> int:
        recorder, reference, offered = Recorder(), Reference(ServiceError("starting", "not yet")), asyncio.Event()
        for _ in range(2000):
            offer(recorder, reference, share)
        asyncio.get_running_loop().call_soon(offered.set)  # comes after the callbacks of the offers
        await offered.wait()
        return recorder.dropped

    assert asyncio.run(scenario(0)) == 0
    assert 106 <= asyncio.run(scenario(0.1)) <= 294

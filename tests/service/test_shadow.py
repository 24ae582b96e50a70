"""Shadows compare answered requests with fp32, and are noticed by nobody."""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import numpy as np
import pytest

from service.engine.queue import Answer
from service.errors import ServiceError
from service.shadow import MOST_IMAGES, Shadow
from tests.service import fakes
from tests.service.pictures import png, solid
from tests.service.processes import Service, running, until

RAW = {"content-type": "application/octet-stream"}
PIXELS, LOGITS = np.zeros((12, 3, 32, 32), np.uint8), np.eye(12, 10, dtype=np.float32)


@pytest.fixture
def service() -> Iterator[Service]:
    with running("--variants", "fp32,int8", "--shadow-share", "1", module="tests.service.fakes") as service:
        yield service


def post(service: Service, variant: str, *values: int) -> int:
    body = np.stack([solid(value) for value in values]).tobytes()
    return service.client.post(f"/predict/{variant}", content=body, headers=RAW).status_code


def compared(service: Service, agree: str) -> float:
    return service.sample("precision_shadow_agreement_total", variant="int8", agree=agree)


def test_agreement_is_counted_by_image(service: Service) -> None:
    """Three images of which one differs, by 5 in its logits; fp32's requests are neither counted nor shadowed."""
    assert post(service, "int8", 1, fakes.DIFFER, 3) == 200
    until(lambda: compared(service, "true") + compared(service, "false") == 3, what="shadow")
    assert (compared(service, "true"), compared(service, "false")) == (2, 1)
    assert service.sample("precision_shadow_logit_distance_sum", variant="int8") == 5
    assert service.outcomes("fp32") == {}
    assert post(service, "fp32", 1) == 200
    assert service.sample("precision_shadow_agreement_total", variant="fp32", agree="true") == 0
    assert service.sample("precision_batch_size_count", variant="fp32") == 2


def test_a_shadow_gives_way(service: Service) -> None:
    """While fp32 is busy the int8 request is answered at once, and its shadow is dropped and counted."""
    with ThreadPoolExecutor(1) as pool:
        stalled = pool.submit(
            service.client.post, "/predict/fp32", content=png(fakes.STALL), headers={"content-type": "image/png"}
        )
        until(lambda: service.sample("precision_requests_in_flight", variant="fp32") == 1, what="stalled batch")
        assert post(service, "int8", 1) == 200
        assert not stalled.done()
        until(lambda: service.sample("precision_shadow_dropped_total", variant="int8") == 1, what="drop")
        assert stalled.result().status_code == 200
    assert compared(service, "true") == 0


class Recorder:
    """Stands for the metrics: what was compared, and how often something was dropped."""

    def __init__(self) -> None:
        self.agrees: list[bool] = []
        self.dropped = 0

    def shadow_compared(self, variant: str, agrees: list[bool], distances: list[float]) -> None:
        self.agrees += agrees

    def shadow_dropped(self, variant: str) -> None:
        self.dropped += 1


class Reference:
    """Stands for fp32's pool: idle; takes requests, whose answers are given by hand."""

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
    shadow = Shadow(share, {"fp32": reference}, recorder, 1.0)
    shadow.offer("int8", PIXELS, LOGITS)
    return shadow


async def turns() -> None:
    for _ in range(3):
        await asyncio.sleep(0)


def test_one_at_a_time_and_bounded() -> None:
    """Of 12 images the first 8 run; another request meanwhile is dropped; the next after the answer is taken."""

    async def scenario() -> None:
        recorder, reference = Recorder(), Reference()
        shadow = offer(recorder, reference)
        shadow.offer("int8", PIXELS, LOGITS)
        await turns()
        assert [entry.images for entry in reference.entries] == [MOST_IMAGES]
        assert recorder.dropped == 1
        result = SimpleNamespace(logits=LOGITS[:MOST_IMAGES])
        reference.entries[0].answer.set_result(Answer(result, MOST_IMAGES, {}))
        await turns()
        assert recorder.agrees == [True] * MOST_IMAGES
        shadow.offer("int8", PIXELS, LOGITS)
        await turns()
        assert len(reference.entries) == 2

    asyncio.run(scenario())


@pytest.mark.parametrize("early", [True, False])
def test_an_fp32_that_fails_is_a_drop(early: bool) -> None:
    """Whether it refuses at once or is lost on the way, nothing is raised and the next shadow may start."""
    error = ServiceError("worker_lost", "gone")

    async def scenario() -> None:
        recorder, reference = Recorder(), Reference(error if early else None)
        offer(recorder, reference)
        await turns()
        for entry in reference.entries:
            entry.answer.set_exception(error)
        await turns()
        assert (recorder.dropped, recorder.agrees) == (1, [])

    asyncio.run(scenario())


def test_a_share_is_a_share() -> None:
    """Of 2000 requests at 10 %, 200 give or take 7 standard deviations are sampled; at 0, none."""

    async def scenario(share: float) -> int:
        recorder, reference = Recorder(), Reference(ServiceError("starting", "not yet"))
        for _ in range(2000):
            offer(recorder, reference, share)
        await turns()
        return recorder.dropped

    assert asyncio.run(scenario(0)) == 0
    assert 106 <= asyncio.run(scenario(0.1)) <= 294

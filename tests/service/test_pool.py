"""What a variant tells requests while its workers start or are lost."""

import asyncio
from types import SimpleNamespace

import numpy as np
import pytest

from service.errors import ServiceError
from service.settings import Settings
from service.workers import pool
from service.workers.pool import STARTING_PAUSE, Pool, Unobserved
from service.workers.status import State
from tests.service.played import LOADS, Lives, Scene, play, ready


@pytest.mark.parametrize(
    ("state", "pauses"), [(State.STARTING, [STARTING_PAUSE]), (State.FAILED, []), (State.UNAVAILABLE, [])]
)
def test_only_a_start_is_told_after_a_pause(state: State, pauses: list[float], monkeypatch: pytest.MonkeyPatch) -> None:
    """A variant that starts refuses after the pause, one that will not start at once."""
    slept: list[float] = []

    async def note(seconds: float) -> None:
        slept.append(seconds)

    variant = Pool("int8", Settings(), [], Unobserved())
    variant.workers = [SimpleNamespace(state=state, reason="told to")]
    monkeypatch.setattr(pool.asyncio, "sleep", note)
    with pytest.raises(ServiceError, match=f"int8 is {state}: told to") as refused:
        asyncio.run(variant.admit(1))
    assert refused.value.reason.word == state
    assert slept == pauses


def test_what_waits_for_a_lost_worker_fails_as_new_requests_do() -> None:
    """At once, with the state and the reason: nobody knows whether the next start succeeds, nor how long it takes."""

    async def act(scene: Scene) -> None:
        await scene.seen.until(lambda: scene.pool.state == "ready")
        pixels = np.zeros((scene.pool.max_batch_size, 3, 32, 32), np.uint8)
        (held,) = scene.pool.submit(pixels, 60)
        scene.pool.dispatch()
        (waits,) = scene.pool.submit(pixels, 60)
        scene.processes[0].link.close()
        with pytest.raises(ServiceError, match="fp32 is starting: the worker died") as of_waiting:
            await asyncio.wait_for(waits.answer, 30)
        with pytest.raises(ServiceError) as of_new:
            scene.pool.submit(pixels, 60)
        with pytest.raises(ServiceError) as of_held:
            await asyncio.wait_for(held.answer, 30)
        errors = [raised.value for raised in (of_waiting, of_new, of_held)]
        assert [error.reason.word for error in errors] == ["starting", "starting", "worker_lost"]
        assert errors[0].detail == errors[1].detail
        assert scene.pool.queue.images == 0

    play(act, Lives((ready(),), LOADS))


def test_what_waits_stays_while_another_worker_is_ready() -> None:
    """The loss of one worker of two fails only the requests that it held."""

    async def act(scene: Scene) -> None:
        await scene.seen.until(lambda: scene.seen.workers == ["ready", "ready"])
        pixels = np.zeros((scene.pool.max_batch_size, 3, 32, 32), np.uint8)
        first, second = scene.pool.submit(pixels, 60) + scene.pool.submit(pixels, 60)
        scene.pool.dispatch()
        (waits,) = scene.pool.submit(pixels, 60)
        scene.lives[0].processes[0].link.close()
        with pytest.raises(ServiceError, match="was lost while it held this request"):
            await asyncio.wait_for(first.answer, 30)
        assert not second.answer.done()
        assert not waits.answer.done()
        assert scene.pool.queue.images == len(pixels)
        second.answer.cancel()  # its worker ends with the test, and nobody would read that error

    play(act, Lives((ready(),), LOADS), Lives((ready(),)))

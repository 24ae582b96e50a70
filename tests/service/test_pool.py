"""What a variant tells requests while none of its workers is ready."""

import asyncio
from types import SimpleNamespace

import pytest

from service.errors import ServiceError
from service.settings import Settings
from service.workers import pool
from service.workers.pool import STARTING_PAUSE, Pool, Unobserved
from service.workers.status import State


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

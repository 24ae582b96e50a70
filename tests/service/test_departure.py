"""The watch for a client that goes away while its request is answered."""

import asyncio
import gc
import weakref
from types import SimpleNamespace
from typing import Any

import pytest

from service import prediction
from service.prediction import Departure


class Entry:
    """An entry that nobody fails."""


def test_a_watched_request_is_freed_without_a_search_for_garbage(monkeypatch: pytest.MonkeyPatch) -> None:
    """The HTTP process searches rarely, and an entry holds the pixels of its images."""
    monkeypatch.setattr(prediction, "WATCH_SECONDS", 0.0)

    async def scenario() -> weakref.ref[Entry]:
        watched, entry = asyncio.Event(), Entry()

        async def receive() -> Any:
            watched.set()
            await asyncio.Event().wait()

        request: Any = SimpleNamespace(receive=receive)
        entries: Any = [entry]
        with Departure(request, entries):
            await watched.wait()
        (watcher,) = asyncio.all_tasks() - {asyncio.current_task()}
        await asyncio.wait([watcher])
        return weakref.ref(entry)

    gc.disable()
    try:
        assert asyncio.run(scenario())() is None
    finally:
        gc.enable()

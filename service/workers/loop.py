"""The life of a worker process: load the engine, then answer batch after batch until the socket ends."""

import gc
import logging
import os
import signal
import socket
import time
from collections.abc import Mapping

from common import machine
from models.engines.base import DeviceLost, EngineError, NonFiniteLogits, OutOfMemory
from service.workers import wire
from service.workers.api import PrecisionAPI
from service.workers.status import Failure

logger = logging.getLogger(__name__)

WORDS: dict[type[EngineError], str] = {
    DeviceLost: "device_lost",
    NonFiniteLogits: "non_finite",
    OutOfMemory: "out_of_memory",
}
"""An engine's exception -> the word of service.errors."""


def work(
    api: PrecisionAPI, device: str, cores: set[int] | None, environment: Mapping[str, str], link: socket.socket
) -> None:
    """Load the API's engine and serve its batches. This is the whole life of a worker process.

    Args:
        api: the variant.
        device: see PrecisionAPI.setup.
        cores: those that the process is bound to; None binds it to none.
        environment: the variables of the HTTP process. Those of the fork server may be older.
        link: the socket to serve.
    """
    os.environ.update(environment)
    machine.name_process(f"worker-{api.variant.name}")
    machine.bind(cores)
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a worker ends with its socket
        signal.signal(number, signal.SIG_IGN)
    api.setup(device)
    Loop(api, link).run()


class Loop:
    """Serves batches from a socket. It blocks between batches, so an idle worker costs nothing.

    The worker ends when its socket ends, so it cannot outlive the process that started it.
    """

    def __init__(self, api: PrecisionAPI, link: socket.socket) -> None:
        self._api = api
        self._link = link
        self._told: dict[str, int] = {}

    def run(self) -> None:
        """Tell that the engine is ready, or why it is not; then answer batches until the other side is gone."""
        try:
            if self._api.refusal is not None:
                self._link.sendall(wire.message(wire.REFUSED, self._api.refusal))
                return
            assert self._api.info is not None
            gc.freeze()  # what lives until the end, modules above all, is not searched for garbage again and again
            self._link.sendall(self._news() + wire.message(wire.READY, self._api.info))
            while (received := wire.receive(self._link)) is not None:
                answer = self._answer(received[1])
                self._link.sendall(self._news() + answer)
        except BrokenPipeError:
            return

    def _news(self) -> bytes:
        """Return a frame with what the GPU's allocator holds if that changed, else nothing. The CPU has none."""
        allocator = self._api.engine.allocator
        if allocator == self._told:
            return b""
        self._told = allocator
        return wire.pack_allocator(self._told)

    def _answer(self, payload: bytearray) -> bytes:
        started = time.perf_counter()
        try:
            execution = self._api.predict(wire.unpack_pixels(payload, self._api.settings.side))
        except EngineError as error:
            logger.exception("the engine has no answer")
            return wire.message(wire.ERROR, Failure(WORDS[type(error)], str(error)))
        except Exception as error:
            logger.exception("the engine raised")
            detail = f"the engine could not run this request ({type(error).__name__})"
            return wire.message(wire.ERROR, Failure("internal", detail))
        return wire.pack_result(
            wire.Result(
                logits=execution.logits,
                started=started,
                finished=time.perf_counter(),
                copy_in=execution.copy_in_seconds,
                inference=execution.inference_seconds,
                copy_out=execution.copy_out_seconds,
                memory_bytes=execution.memory_bytes,
            )
        )

"""The loop of a worker process: receive a batch, send its answer, until the other side of the socket is gone."""

import logging
import signal
import socket
import time
from typing import Any

from litserve.loops.base import LitLoop

from models.engines.base import DeviceLost, EngineError, NonFiniteLogits, OutOfMemory
from service.workers import wire
from service.workers.status import Failure

logger = logging.getLogger(__name__)

WORDS: dict[type[EngineError], str] = {
    DeviceLost: "device_lost",
    NonFiniteLogits: "non_finite",
    OutOfMemory: "out_of_memory",
}
"""An engine's exception -> the word of service.errors."""


class SocketLoop(LitLoop):  # type: ignore[misc]
    """A LitLoop that serves batches from a socket. It blocks between batches, so an idle worker costs nothing.

    The worker ends when its socket ends, so it cannot outlive the process that started it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._told: dict[str, int] = {}

    def __call__(
        self,
        lit_api: Any,
        device: str,
        worker_id: int,
        request_queue: socket.socket,
        transport: Any,
        workers_setup_status: Any,
        callback_runner: Any,
    ) -> None:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):  # a worker ends with its socket
            signal.signal(number, signal.SIG_IGN)
        link = request_queue
        try:
            if lit_api.refusal is not None:
                link.sendall(wire.message(wire.REFUSED, lit_api.refusal))
                return
            link.sendall(self._news(lit_api) + wire.message(wire.READY, lit_api.info))
            while (received := wire.receive(link)) is not None:
                answer = self._answer(lit_api, received[1])
                link.sendall(self._news(lit_api) + answer)
        except BrokenPipeError:
            return

    def _news(self, lit_api: Any) -> bytes:
        """Return a frame with what the GPU's allocator holds if that changed, else nothing. The CPU has none."""
        if lit_api.engine.allocator == self._told:
            return b""
        self._told = lit_api.engine.allocator
        return wire.pack_allocator(self._told)

    def _answer(self, lit_api: Any, payload: bytearray) -> bytes:
        started = time.perf_counter()
        try:
            execution = lit_api.predict(wire.unpack_pixels(payload, lit_api.settings.side))
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

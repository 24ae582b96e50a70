"""The way of a prediction, top to bottom: begin, receive, decode, submit, await, answer.

A route is a thin face on it. It passes its answer, a function from a Prediction to a response, to `predicted` or
`compared`, which begin and end the request. In between the answer calls the Prediction's methods in their order:
`deadline`, `admit`, `read`, `execute`, `answered` (docs/decisions/0006-the-way-of-a-prediction.md).
"""

import asyncio
import re
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence, Sized
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass
from typing import Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from models.card import Card
from models.evaluation.record import Entry as Evaluation
from service.bodies import Budget, received
from service.deadline import Deadline
from service.decoders import Decoders
from service.decoding import Received
from service.errors import ServiceError
from service.executed import Executed
from service.images import Limits
from service.logs import COMPARE, UNKNOWN, RequestLog
from service.metrics import Metrics
from service.phases import Phases, server_timing
from service.problems import as_service_error, error_response, request_id_of
from service.settings import Settings
from service.shadow import Shadow
from service.workers.pool import Pool
from service.workers.queue import Entry
from service.workers.status import State
from service.workers.wire import Result

WATCH_SECONDS = 0.05
"""After this time a request's connection is watched for the client's departure. Most requests are answered before."""
ENDINGS = (Exception, asyncio.CancelledError)
"""What an answer may raise. uvicorn cancels requests when the time to drain is over; they get an answer, too."""
NOTHING = Phases()
Decoded = TypeVar("Decoded", bound=Sized)


class Trace(Protocol):
    """Makes the spans of predictions that ended (service.tracing)."""

    def __call__(self, prediction: "Prediction", outcome: str, seconds: float) -> None: ...
    def close(self) -> None: ...


@dataclass(frozen=True)
class Service:
    """The parts of the running service, which every route may use."""

    settings: Settings
    pools: Mapping[str, Pool]
    """Variant -> its queue and workers."""
    metrics: Metrics
    log: RequestLog
    trace: Trace | None
    shadow: Shadow
    checkpoint: Card
    network: str
    """torchvision's name of the network: `resnet18`."""
    evaluations: Mapping[str, Evaluation]
    """Variant -> how good it was found to be."""
    budget: Budget
    decoders: Decoders
    stops: Callable[[], bool]
    """Returns whether the service was told to stop."""

    @property
    def is_ready(self) -> bool:
        """True if every variant answers, until the service is told to stop.

        Variants that this machine cannot run do not count, unless all are such.
        """
        if self.stops():
            return False
        possible = [pool.state for pool in self.pools.values() if pool.state != State.UNAVAILABLE]
        return bool(possible) and all(state == State.READY for state in possible)

    def pool(self, variant: str) -> Pool:
        """Return the pool of a variant.

        Raises:
            ServiceError: `unknown_variant`.
        """
        if variant not in self.pools:
            raise ServiceError("unknown_variant", f"expected one of: {', '.join(self.pools)}")
        return self.pools[variant]


def service_of(request: Request) -> Service:
    """Return the service that a request came to."""
    service: Service = request.app.state.service
    return service


@dataclass(slots=True)
class Prediction:
    """A request under way: who asked, since when, and how far it got."""

    service: Service
    request: Request
    variant: str
    """The label in metrics, log and trace: a name that is served, `unknown` or `compare`."""
    id: str
    began: float
    """A reading of `time.perf_counter()` when the headers were here."""
    images: int = 0
    phases: Phases = NOTHING
    path: Sequence[Result] = ()
    """See Executed."""

    def deadline(self) -> Deadline:
        """Return the request's deadline: X-Request-Timeout if it is given and sooner than the service's own.

        Raises:
            ServiceError: `malformed`.
        """
        deadline = Deadline(self.began, self.service.settings.request_timeout)
        given = self.request.headers.get("x-request-timeout")
        if given is None:
            return deadline
        if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", given):
            raise ServiceError("malformed", f"X-Request-Timeout: expected seconds as a decimal number, got {given!r}")
        return deadline.or_clients(float(given))

    async def admit(self, pool: Pool) -> None:
        """Raise ServiceError unless the variant would take the request, before its body is read: see `Pool.admit`."""
        await pool.admit(float(self.request.headers.get("content-length", "inf")))

    async def read(self, decode: Callable[[Received, Limits], Decoded], deadline: Deadline) -> Decoded:
        """Receive the body and decode it. The length of what `decode` returns is the number of images.

        Raises:
            ServiceError: see `service.bodies.received`, `service.decoders.Decoders.decode`, and what `decode` raises.
        """
        service, request = self.service, self.request
        async with received(request, service.settings, service.budget, deadline) as body:
            arrived = time.perf_counter()
            decoded = await service.decoders.decode(decode, body, deadline)
        self.images = len(decoded)
        self.phases = Phases(receive=arrived - self.began, decode=time.perf_counter() - arrived)
        return decoded

    async def execute(self, pool: Pool, pixels: NDArray[np.uint8], deadline: Deadline) -> Executed:
        """Submit `[N, 3, S, S] uint8` images to a variant and wait for the logits of all of them.

        Raises:
            ServiceError: see `Pool.submit`; the deadline's; `client_closed`. Images that no worker has taken by then
                are not computed.
        """
        deadline.check()
        entries = pool.submit(pixels, deadline.left)
        with deadline.kept(), self._watch(entries):
            try:
                answers = [await entry.answer for entry in entries]
            except ServiceError as error:
                _abandon(entries, error)
                error.__traceback__ = None  # the entries hold the error, and its traceback holds them and the pixels
                raise copy(error) from None
        executed = Executed.of(pool.variant, self.phases, entries[0].enqueued, answers)
        self.service.shadow.offer(pool.variant, pixels, executed.logits)
        return executed

    @contextmanager
    def _watch(self, entries: Sequence[Entry]) -> Iterator[None]:
        """Fail the entries if the client goes away while the block runs."""
        watchers: list[asyncio.Task[None]] = []

        async def watch() -> None:
            while (await self.request.receive())["type"] != "http.disconnect":
                pass
            for entry in entries:
                entry.fail(ServiceError("client_closed", "the client went away"))

        loop = asyncio.get_running_loop()
        timer = loop.call_later(WATCH_SECONDS, lambda: watchers.append(loop.create_task(watch())))
        try:
            yield
        finally:
            timer.cancel()
            for watcher in watchers:
                watcher.cancel()

    def answered(self, executed: Executed, body: str | bytes, headers: Mapping[str, str]) -> Response:
        """Return the response with this body, and observe the prediction's phases."""
        now = time.perf_counter()
        self.path = executed.path
        self.phases = executed.phases.ended(encode=now - executed.delivered, duration=now - self.began)
        seconds = self.phases.reached()
        self.service.metrics.answered(executed.variant, executed.info, self.images, seconds, executed.memory_bytes)
        return Response(body, headers={**headers, "Server-Timing": server_timing(seconds)})


def _abandon(entries: Sequence[Entry], error: ServiceError) -> None:
    """Fail the other entries of a request, so that their images are not computed."""
    for entry in entries:
        entry.fail(error)
        entry.answer.exception()


Answering = Callable[[Prediction], Awaitable[Response]]


async def predicted(request: Request, variant: str, answer: Answering) -> Response:
    """Return the answer to a prediction, or the error that it ends in. It is counted, logged and traced once."""
    service = service_of(request)
    name = variant if variant in service.pools else UNKNOWN
    service.metrics.started(name)
    prediction = Prediction(service, request, name, request_id_of(request), time.perf_counter())

    def count(outcome: str, seconds: float) -> None:
        service.metrics.ended(name, outcome, seconds)
        if service.trace:
            service.trace(prediction, outcome, seconds)

    return await _ended(prediction, answer, count)


async def compared(request: Request, answer: Answering) -> Response:
    """Return the answer to a comparison. It ends as a prediction does, but has a count of its own and no trace."""
    service = service_of(request)
    comparison = Prediction(service, request, COMPARE, request_id_of(request), time.perf_counter())
    return await _ended(comparison, answer, lambda outcome, _: service.metrics.compared(outcome))


async def _ended(prediction: Prediction, answer: Answering, count: Callable[[str, float], None]) -> Response:
    """Return the answer or the error; tell `count` the outcome, `ok` or the error's word, and the seconds."""
    outcome = "internal"
    try:
        response = await answer(prediction)
        outcome = "ok"
        response.headers["X-Request-ID"] = prediction.id
        return response
    except ENDINGS as raised:  # kept in no other variable: its traceback holds this frame, and so the body
        outcome, response = _failed(prediction, as_service_error(raised))
        return response
    finally:
        seconds = time.perf_counter() - prediction.began
        count(outcome, seconds)
        prediction.service.log(
            prediction.id, prediction.variant, outcome, prediction.images, seconds, prediction.phases.reached()
        )


def _failed(prediction: Prediction, error: ServiceError) -> tuple[str, Response]:
    """Return the error's word and its response."""
    response = error_response(prediction.request, error, prediction.id)
    total = {"total": time.perf_counter() - prediction.began}
    response.headers["Server-Timing"] = server_timing(prediction.phases.reached() | total)
    return error.reason.word, response

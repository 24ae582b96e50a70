"""`POST /predict/{variant}` and `POST /compare`."""

import asyncio
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Annotated, Any

import numpy as np
from fastapi import APIRouter, Path, Query
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from service import bodies
from service.deadline import Deadline
from service.errors import ServiceError
from service.routes.counted import ComparedRoute, CountedRoute, PredictQuery, server_timing
from service.routes.openapi import IMAGES, PREDICTION, errors
from service.schemas import (
    Candidate,
    Compared,
    CompareResponse,
    Memory,
    Prediction,
    PredictResponse,
    Timing,
)
from service.settings import Settings
from service.workers.pool import Pool
from service.workers.queue import Entry
from service.workers.wire import Result

WATCH_SECONDS = 0.05


def router() -> APIRouter:
    routes = APIRouter()
    counted, compared = APIRouter(route_class=CountedRoute), APIRouter(route_class=ComparedRoute)
    counted.add_api_route(
        "/predict/{variant}", predict, methods=["POST"], response_model=PredictResponse, openapi_extra=IMAGES,
        responses=errors(*PREDICTION), tags=["predict"],
        summary="Classify images with one variant",
    )  # fmt: skip
    compared.add_api_route(
        "/compare", compare, methods=["POST"], response_model=CompareResponse, openapi_extra=IMAGES,
        responses=errors(400, 408, 413, 415, 422, 503, 504), tags=["predict"],
        summary="Every ready variant's answer side by side",
    )  # fmt: skip
    routes.include_router(counted)
    routes.include_router(compared)
    return routes


async def predict(
    request: Request, variant: Annotated[str, Path(examples=["int8"])], query: Annotated[PredictQuery, Query()]
) -> Response:
    pool, deadline = pool_of(request, variant), deadline_of(request)
    pool.check()
    pixels, phases = await read_pixels(request, deadline)
    done = await execute(request, pool, pixels, phases, deadline)
    assembling = time.perf_counter()
    body = assemble(request, pool, done, phases, query.top_k, query.logits).model_dump_json(exclude_none=True)
    headers = answered(request, variant, done, phases, assembling)
    return Response(body, headers=headers, media_type="application/json")


def answered(
    request: Request, variant: str, done: "Done", phases: dict[str, float], assembling: float
) -> dict[str, str]:
    """Observe a prediction whose answer was put together since `assembling`; the headers that tell its phases."""
    now = time.perf_counter()
    phases["encode"] = now - assembling
    phases["other"] = max(0.0, now - request.state.began - sum(phases.values()))
    request.app.state.metrics.answered(variant, done.card, len(done.logits), phases, done.memory_bytes)
    return {"Server-Timing": server_timing(phases)}


async def compare(request: Request, query: Annotated[PredictQuery, Query()]) -> Response:
    deadline = deadline_of(request)
    pixels, phases = await read_pixels(request, deadline)
    pools: dict[str, Pool] = request.app.state.pools
    answers = await asyncio.gather(
        *(_compare_one(request, pool, pixels, dict(phases), deadline, query.top_k) for pool in pools.values())
    )
    columns = dict(zip(pools, answers, strict=True))
    _hold_against_reference(columns)
    if not query.logits:
        for column in columns.values():
            for prediction in column.answer.predictions if column.answer else ():
                prediction.logits = None
    document = CompareResponse(reference="fp32", variants=columns, request_id=request.state.request_id)
    return Response(document.model_dump_json(exclude_none=True), media_type="application/json")


async def _compare_one(
    request: Request, pool: Pool, pixels: NDArray[np.uint8], phases: dict[str, float], deadline: Deadline, top_k: int
) -> Compared:
    try:
        done = await execute(request, pool, pixels, phases, deadline)
    except ServiceError as error:
        if error.reason.word == "client_closed":
            raise
        return Compared(error=error.detail)
    return Compared(answer=assemble(request, pool, done, phases, top_k, logits=True))


def _hold_against_reference(columns: dict[str, Compared]) -> None:
    reference = columns.get("fp32")
    if reference is None or reference.answer is None:
        return
    for column in columns.values():
        if column.answer is None:
            continue
        pairs = list(zip(column.answer.predictions, reference.answer.predictions, strict=True))
        column.agrees = [a.class_index == b.class_index for a, b in pairs]
        column.max_logit_difference = [float(np.abs(np.subtract(a.logits or 0, b.logits or 0)).max()) for a, b in pairs]


def pool_of(request: Request, variant: str) -> Pool:
    pools: dict[str, Pool] = request.app.state.pools
    if variant not in pools:
        raise ServiceError("unknown_variant", f"expected one of: {', '.join(pools)}")
    return pools[variant]


async def read_pixels(request: Request, deadline: Deadline) -> tuple[NDArray[np.uint8], dict[str, float]]:
    """The request's images as `[N, 3, S, S] uint8`, and its phases so far."""
    settings: Settings = request.app.state.settings
    async with bodies.received(request, settings, deadline) as body:
        received = time.perf_counter()
        parts = await bodies.encoded_parts(request.headers, body, settings, deadline)
        encoded_bytes = 0 if parts is None else len(body)  # raw pixels are taken as they lie
        pixels = await bodies.timely(partial(bodies.decode, parts, body), encoded_bytes, settings, deadline)
    return pixels, was_read(request, len(pixels), received)


def was_read(request: Request, images: int, received: float) -> dict[str, float]:
    """Note that the body, which was there when `received`, holds that many images; the request's phases so far."""
    phases = {"receive": received - request.state.began, "decode": time.perf_counter() - received}
    request.state.images, request.state.phases = images, phases
    return phases


@dataclass(frozen=True, slots=True)
class Done:
    """An executed request: logits `[N, 10] float32`, its engine's card, the largest batch and memory of its parts."""

    logits: NDArray[np.float32]
    card: dict[str, Any]
    batch_size: int
    memory_bytes: int


async def execute(
    request: Request, pool: Pool, pixels: NDArray[np.uint8], phases: dict[str, float], deadline: Deadline
) -> Done:
    """Run the images, and add the seconds of `queue`, `copy_in`, `inference`, `copy_out`, `deliver` to `phases`.

    Of a request that was split over several batches the worker's phases are those of `in_turn`, added up.

    Raises:
        ServiceError: see Pool, and the deadline's; `client_closed` when the client went away. What was not started
            then is not computed.
    """
    deadline.check()
    entries = pool.submit(pixels, deadline.left)
    with deadline.kept(), watched(request, entries):
        try:
            answers = [await entry.answer for entry in entries]
        except ServiceError as error:
            _abandon(entries, error)
            raise
    results = [answer.result for answer in answers]
    timed = request.state.results = in_turn(results)
    phases["queue"] = timed[0].started - entries[0].enqueued
    for name in ("copy_in", "inference", "copy_out"):
        phases[name] = sum([getattr(result, name) for result in timed])
    done = Done(
        logits=results[0].logits if len(results) == 1 else np.concatenate([result.logits for result in results]),
        card=answers[0].card,
        batch_size=max([answer.batch_size for answer in answers]),
        memory_bytes=max([result.memory_bytes for result in results]),
    )
    request.app.state.shadow.offer(pool.variant, pixels, done.logits)
    phases["deliver"] = time.perf_counter() - timed[-1].computed
    return done


def in_turn(results: Sequence[Result]) -> list[Result]:
    """The parts of a request that its end waited for: the last to finish, the one before which that began, and so on.

    With one worker these are all; what other workers ran meanwhile did not take the request any longer.
    """
    turn: list[Result] = []
    for result in sorted(results, key=lambda result: result.finished, reverse=True):
        if not turn or result.finished <= turn[-1].started:
            turn.append(result)
    return turn[::-1]


def _abandon(entries: list[Entry], error: ServiceError) -> None:
    """What is left of a request that failed is not computed."""
    for entry in entries:
        entry.fail(error)
        entry.answer.exception()


@contextmanager
def watched(request: Request, entries: list[Entry]) -> Iterator[None]:
    """Fail the entries when the client goes away. Looked for after WATCH_SECONDS: most are answered before."""
    watchers: list[asyncio.Task[None]] = []

    async def watch() -> None:
        while (await request.receive())["type"] != "http.disconnect":
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


def deadline_of(request: Request) -> Deadline:
    """A request's deadline, counted from its headers: X-Request-Timeout where it is given and sooner than the setting.

    Raises:
        ServiceError: `malformed`.
    """
    deadline = Deadline(request.state.began, request.app.state.settings.request_timeout)
    given = request.headers.get("x-request-timeout")
    if given is None:
        return deadline
    if not re.fullmatch(r"\d{1,9}(\.\d{1,9})?", given):
        raise ServiceError("malformed", f"X-Request-Timeout: expected seconds as a decimal number, got {given!r}")
    return deadline.or_clients(float(given))


def assemble(
    request: Request, pool: Pool, done: Done, phases: dict[str, float], top_k: int, logits: bool
) -> PredictResponse:
    """The answer to a request that was executed."""
    return PredictResponse(
        variant=pool.variant,
        device=done.card["device"],
        predictions=predictions_of(done.logits, request.app.state.checkpoint["classes"], top_k, logits),
        batch_size=done.batch_size,
        timing=Timing(
            receive_seconds=phases["receive"],
            decode_seconds=phases["decode"],
            queue_seconds=phases["queue"],
            copy_in_seconds=phases["copy_in"],
            inference_seconds=phases["inference"],
            copy_out_seconds=phases["copy_out"],
            deliver_seconds=phases["deliver"],
            total_seconds=time.perf_counter() - request.state.began,
        ),
        memory=Memory(peak_bytes=done.memory_bytes, kind=done.card["memory_kind"]),
        request_id=request.state.request_id,
    )


def predictions_of(
    logits: NDArray[np.float32], classes: Sequence[str], top_k: int, with_logits: bool
) -> list[Prediction]:
    """`[N, 10] float32` logits as answers, classes by falling probability."""
    shifted = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = shifted / shifted.sum(axis=1, keepdims=True)
    order = np.argsort(-logits, axis=1, kind="stable")[:, :top_k]
    return [
        _prediction(classes, row, best, values if with_logits else None)
        for row, best, values in zip(probabilities.tolist(), order.tolist(), logits.tolist(), strict=True)
    ]


def _prediction(
    classes: Sequence[str], probabilities: list[float], best: list[int], logits: list[float] | None
) -> Prediction:
    candidates = [Candidate(label=classes[i], class_index=i, probability=probabilities[i]) for i in best]
    top = candidates[0]
    return Prediction(
        label=top.label, class_index=top.class_index, probability=top.probability, top_k=candidates, logits=logits
    )

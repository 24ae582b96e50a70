"""The served variants, their health, their metrics and the description of the API."""

import json
from dataclasses import asdict
from functools import lru_cache
from typing import Any

from fastapi import APIRouter, FastAPI
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from common import machine
from models.evaluation import record as evaluation
from models.variants import VARIANTS
from service import __version__
from service.http.sliced import SlicedResponse
from service.metrics import CONTENT_TYPE
from service.prediction import service_of
from service.schemas import Readiness, VariantInfo, Variants
from service.sharing import Shared
from service.workers.pool import Pool


def router() -> APIRouter:
    """Return the routes of the service itself."""
    routes = APIRouter(tags=["service"])
    add = routes.add_api_route
    scrapes, cards = Shared(_scrape), Shared(_variants)

    async def metrics(request: Request) -> Response:
        return SlicedResponse(await scrapes.get(request), media_type=CONTENT_TYPE)

    async def variants(request: Request) -> Response:
        return SlicedResponse(await cards.get(request), media_type="application/json")

    add("/variants", variants, response_model=Variants, summary="What is served, on what, and how large it is")
    add(
        "/health/live", live, response_class=PlainTextResponse, summary="200: the process answers",
        responses={200: {"content": {"text/plain": {"example": "ok\n"}}}},
    )  # fmt: skip
    for path in ("/health/ready", "/health"):
        add(
            path, ready, response_model=Readiness, responses={503: {"model": Readiness}},
            summary="200: every variant that can load answers; else 503",
        )  # fmt: skip
    add(
        "/metrics", metrics, response_class=PlainTextResponse, summary="Prometheus metrics",
        responses={200: {"content": {"text/plain": {"example": 'precision_variant_ready{variant="int8"} 1.0\n'}}}},
    )  # fmt: skip
    add("/openapi.json", description, include_in_schema=False)
    return routes


async def live() -> Response:
    return PlainTextResponse("ok\n")


async def ready(request: Request) -> Response:
    service = service_of(request)
    states = {name: str(pool.state) for name, pool in service.pools.items()}
    document = Readiness(ready=service.is_ready, stopping=service.stops(), variants=states)
    return JSONResponse(document.model_dump(), 200 if document.ready else 503)


async def description(request: Request) -> Response:
    return SlicedResponse(described(request.app), media_type="application/json")


@lru_cache(maxsize=1)
def described(app: FastAPI) -> bytes:
    """Return the description of the API, which never changes, as JSON."""
    return json.dumps(app.openapi(), ensure_ascii=False, separators=(",", ":")).encode()


async def _scrape(request: Request) -> bytes:
    return await service_of(request).metrics.exposition()


async def _variants(request: Request) -> str:
    service = service_of(request)
    document = Variants(
        variants=[info_of(pool, service.evaluations.get(name)) for name, pool in service.pools.items()],
        checkpoint=asdict(service.checkpoint),
        service={"version": __version__} | machine.describe(),
    )
    return document.model_dump_json()


UNSHOWN = {"activation_peaks"}
"""Fields of a worker's info that are not shown: a row per batch size, which /metrics has."""


def info_of(pool: Pool, entry: evaluation.Entry | None) -> VariantInfo:
    """Return what is known of a variant. `entry` is its evaluation, shown if it belongs to the weights that run."""
    row = VARIANTS[pool.variant]
    known: dict[str, Any] = {
        "name": row.name,
        "dtype": row.dtype,
        "backend": row.backend,
        "reference": row.reference,
        "summary": row.summary,
    }
    worker = pool.info.as_json() if pool.info else {}
    running = {name: value for name, value in worker.items() if value is not None and name not in UNSHOWN}
    now: dict[str, Any] = {"state": pool.state, "reason": pool.reason, "max_batch_size": pool.max_batch_size}
    now |= {"last_death": asdict(pool.last_death) if pool.last_death else None}
    measured = {"evaluation": entry if entry and evaluation.belongs(entry, worker) else None}
    return VariantInfo.model_validate(known | running | now | measured)

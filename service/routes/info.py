"""What is served, how it is, and its metrics."""

from typing import Any

from fastapi import APIRouter
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response

from common import machine
from models.evaluation import record as evaluation
from models.variants import VARIANTS
from service import __version__
from service.metrics import CONTENT_TYPE
from service.schemas import Readiness, VariantCard, Variants
from service.workers.pool import Pool


def router() -> APIRouter:
    routes = APIRouter(tags=["service"])
    routes.add_api_route(
        "/variants", variants, response_model=Variants, summary="What is served, on what, and how large it is"
    )
    add = routes.add_api_route
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
    return routes


async def live() -> Response:
    return PlainTextResponse("ok\n")


async def ready(request: Request) -> Response:
    states = {name: pool.state for name, pool in pools_of(request).items()}
    document = Readiness(ready=is_ready(request), variants=states)
    return JSONResponse(document.model_dump(), 200 if document.ready else 503)


def is_ready(request: Request) -> bool:
    """Variants that cannot run on this machine do not count, unless nothing else is left."""
    possible = [pool.state for pool in pools_of(request).values() if pool.state != "unavailable"]
    return bool(possible) and all(state == "ready" for state in possible)


async def metrics(request: Request) -> Response:
    return Response(request.app.state.metrics.exposition(), media_type=CONTENT_TYPE)


async def variants(request: Request) -> Response:
    evaluations = request.app.state.evaluations
    cards = [card_of(pool, evaluations.get(name)) for name, pool in pools_of(request).items()]
    service = {"version": __version__} | machine.describe()
    document = Variants(variants=cards, checkpoint=request.app.state.checkpoint, service=service)
    return Response(document.model_dump_json(), media_type="application/json")


def pools_of(request: Request) -> dict[str, Pool]:
    pools: dict[str, Pool] = request.app.state.pools
    return pools


def card_of(pool: Pool, entry: evaluation.Entry | None) -> VariantCard:
    """`entry` is what is known of the variant, if it belongs to the weights that it runs."""
    row = VARIANTS[pool.variant]
    known: dict[str, Any] = {
        "name": row.name,
        "dtype": row.dtype,
        "backend": row.backend,
        "reference": row.reference,
        "summary": row.summary,
    }
    now = {"state": pool.state, "reason": pool.reason, "max_batch_size": pool.max_batch_size}
    card = {key: value for key, value in pool.card.items() if key != "activation_peaks"}  # a row per batch size
    measured = {"evaluation": entry if entry and evaluation.belongs(entry, pool.card) else None}
    return VariantCard.model_validate(known | card | now | measured)

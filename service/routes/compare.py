"""`POST /compare`: one request, the answers of all variants side by side."""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from starlette.requests import Request
from starlette.responses import Response

from models.variants import REFERENCE
from service.agreement import Agreement
from service.answers import predict_response
from service.deadline import Deadline
from service.decoding import pixels_of
from service.errors import ServiceError
from service.executed import Executed
from service.prediction import Prediction, compared
from service.routes.openapi import IMAGES, QUERY, errors
from service.routes.predict import JSON, query_of
from service.schemas import Compared, CompareResponse, PredictQuery, PredictResponse
from service.workers.pool import Pool


def router() -> APIRouter:
    """Return the route. FastAPI only describes its parameters: the endpoint reads them, so that mistakes count."""
    routes = APIRouter(tags=["predict"])
    routes.add_api_route(
        "/compare", compare, methods=["POST"], response_model=CompareResponse,
        openapi_extra=IMAGES | {"parameters": [*QUERY, *IMAGES["parameters"]]},
        responses=errors(400, 408, 413, 415, 422, 503, 504), summary="Every ready variant's answer side by side",
    )  # fmt: skip
    return routes


@dataclass(frozen=True, slots=True)
class Column:
    """One variant's answer."""

    executed: Executed
    document: PredictResponse


async def compare(request: Request) -> Response:
    return await compared(request, _answer)


async def _answer(comparison: Prediction) -> Response:
    query, deadline = query_of(comparison.request), comparison.deadline()
    pixels = await comparison.read(pixels_of, deadline)
    pools = comparison.service.pools
    columns = await asyncio.gather(*(_column(comparison, pool, pixels, deadline, query) for pool in pools.values()))
    document = CompareResponse(
        reference=REFERENCE,
        variants=held_against_reference(dict(zip(pools, columns, strict=True))),
        request_id=comparison.id,
    )
    return Response(document.model_dump_json(exclude_none=True), headers=JSON)


async def _column(
    comparison: Prediction, pool: Pool, pixels: NDArray[np.uint8], deadline: Deadline, query: PredictQuery
) -> Column | ServiceError:
    """Return the variant's answer, or the error that it alone ends in."""
    try:
        executed = await comparison.execute(pool, pixels, deadline)
    except ServiceError as error:
        if error.reason.word == "client_closed":
            raise
        return error
    return Column(executed, predict_response(comparison, executed, query))


def held_against_reference(columns: Mapping[str, Column | ServiceError]) -> dict[str, Compared]:
    """Return each variant's part of the document; without an answer of the reference, nothing is compared with it."""
    reference = columns.get(REFERENCE)
    return {
        name: Compared(error=column.detail)
        if isinstance(column, ServiceError)
        else _compared(column, reference if isinstance(reference, Column) else None)
        for name, column in columns.items()
    }


def _compared(column: Column, reference: Column | None) -> Compared:
    if reference is None:
        return Compared(answer=column.document)
    agreement = Agreement.of(column.executed.logits, reference.executed.logits)
    return Compared(answer=column.document, agrees=agreement.same_class, max_logit_difference=agreement.distance)

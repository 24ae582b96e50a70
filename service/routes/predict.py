"""`POST /predict/{variant}`."""

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.requests import Request
from starlette.responses import Response

from service.answers import predict_json
from service.decoding import pixels_of
from service.errors import ServiceError
from service.prediction import Prediction, predicted, service_of
from service.routes.openapi import IMAGES, PREDICTION, QUERY, VARIANT, errors
from service.schemas import PredictQuery, PredictResponse
from service.validation import first_mistake

JSON = {"Content-Type": "application/json"}
NO_QUERY = PredictQuery()
"""The query of most requests, made once."""


def router() -> APIRouter:
    """Return the route. FastAPI only describes its parameters: the endpoint reads them, so that mistakes count."""
    routes = APIRouter(tags=["predict"])
    routes.add_api_route(
        "/predict/{variant}", endpoint, methods=["POST"], response_model=PredictResponse,
        openapi_extra=IMAGES | {"parameters": [VARIANT, *QUERY, *IMAGES["parameters"]]},
        responses=errors(*PREDICTION), name="predict", summary="Classify images with one variant",
    )  # fmt: skip
    return routes


async def endpoint(request: Request) -> Response:
    return await predict(request, request.path_params["variant"])


async def predict(request: Request, variant: str) -> Response:
    """Answer a prediction with the variant, which may not exist."""

    async def answer(prediction: Prediction) -> Response:
        query = query_of(request)
        pool, deadline = service_of(request).pool(variant), prediction.deadline()
        await prediction.admit(pool)
        pixels = await prediction.read(pixels_of, deadline)
        executed = await prediction.execute(pool, pixels, deadline)
        return prediction.answered(executed, predict_json(prediction, executed, query), JSON)

    return await predicted(request, variant, answer)


def query_of(request: Request) -> PredictQuery:
    """Return the query of a prediction or comparison.

    Raises:
        ServiceError: `unacceptable`.
    """
    if not request.scope["query_string"]:
        return NO_QUERY
    try:
        query = PredictQuery.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise ServiceError("unacceptable", first_mistake(error)) from None
    most = len(service_of(request).checkpoint.labels)
    if query.top_k > most:
        raise ServiceError("unacceptable", f"top_k: the network has {most} classes, so at most {most}")
    return query

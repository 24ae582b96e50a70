"""The Open Inference Protocol v2 under `/v2`. Every variant is a model, see `service.v2.names`."""

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from models.variants import VARIANTS
from service import __version__
from service.bodies import SMALL_BYTES, headers_of, received
from service.deadline import Deadline
from service.decoding import check_json, inflated
from service.errors import ServiceError
from service.prediction import Prediction, Service, predicted, service_of
from service.routes.openapi import INFER, PREDICTION, errors, reference
from service.sharing import Shared
from service.v2 import documents, tensors
from service.v2.names import model_of, variant_of
from service.v2.statistics import statistics
from service.validation import first_mistake
from service.workers.pool import Pool
from service.workers.status import State

EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]
STATES: dict[State, documents.ModelState] = {
    State.READY: "READY",
    State.STARTING: "LOADING",
    State.FAILED: "UNAVAILABLE",
    State.UNAVAILABLE: "UNAVAILABLE",
}
"""A variant's state -> the protocol's word."""

MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "examples": ["resnet18-int8"]}}
VERSION = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "examples": ["264577279579365"]},
}
PATHS = {"/v2/models/{model}": [MODEL], "/v2/models/{model}/versions/{version}": [MODEL, VERSION]}
_NO_MEMORY = "shared memory is not supported: tensors go in the body, as bytes where that matters"
_NO_TRACE = "tracing cannot be set: /metrics and the Server-Timing header tell the phases of every request"
ABSENT = {
    "/v2/repository/models/{path:path}": "models cannot be loaded or unloaded: --variants chooses them at the start",
    "/v2/systemsharedmemory/{path:path}": _NO_MEMORY,
    "/v2/cudasharedmemory/{path:path}": _NO_MEMORY,
    "/v2/trace/setting": _NO_TRACE,
    "/v2/models/{model}/trace/setting": _NO_TRACE,
    "/v2/logging": "logging cannot be set: --log-level chooses it at the start",
}
"""Paths of Triton that this service does not have -> the reason, which the 404 gives."""
INDEX = {"requestBody": {"content": {"application/json": {"schema": reference(documents.IndexRequest)}}}}


def router() -> APIRouter:
    """Return the protocol's routes, and a 404 with a reason for each path in ABSENT."""
    routes = APIRouter(tags=["open inference protocol"])
    add = routes.add_api_route
    counted = Shared(_statistics)

    async def stats(request: Request) -> Response:
        name = pool_of(request).variant if "model" in request.path_params else None
        rows = await counted.get(request) or {}
        document = documents.Statistics(model_stats=[row for variant, row in rows.items() if name in (variant, None)])
        return Response(document.model_dump_json(), media_type="application/json")

    add("/v2", server, response_model=documents.ServerMetadata, summary="Server metadata")
    add("/v2/health/live", live, response_model=documents.Live, summary="200: the process answers")
    add(
        "/v2/health/ready", ready, response_model=documents.Ready, responses={503: {"model": documents.Ready}},
        summary="As /health/ready",
    )  # fmt: skip
    add("/v2/models/stats", stats, response_model=documents.Statistics, summary="Statistics of all models")
    add(
        "/v2/repository/index", index, methods=["POST"], response_model=list[documents.IndexEntry],
        openapi_extra=INDEX, responses=errors(400, 408, 413, 415, 503, 504, v2=True),
        summary="Every model and its state",
    )  # fmt: skip
    for path, parameters in PATHS.items():
        extra, unknown = {"parameters": parameters}, errors(404, v2=True)
        add(
            path, metadata, response_model=documents.ModelMetadata, openapi_extra=extra, responses=unknown,
            summary="Tensors, platform and version of a model",
        )  # fmt: skip
        add(
            path + "/ready", model_ready, response_model=documents.ModelReady, openapi_extra=extra,
            responses=unknown | {503: {"model": documents.ModelReady}}, summary="200: the model answers",
        )  # fmt: skip
        add(
            path + "/config", config, response_model=documents.ModelConfig, openapi_extra=extra, responses=unknown,
            summary="Batching and tensors, as Triton configures them",
        )  # fmt: skip
        add(
            path + "/stats", stats, response_model=documents.Statistics, openapi_extra=extra, responses=unknown,
            summary="Counts and times since the start",
        )  # fmt: skip
        add(
            path + "/infer", infer, methods=["POST"], responses=errors(*PREDICTION, v2=True),
            openapi_extra=INFER | {"parameters": [*parameters, *INFER["parameters"]]}, summary="Classify images",
        )  # fmt: skip
    for path, reason in ABSENT.items():
        add(path, _absent(reason), methods=["GET", "POST"], include_in_schema=False)
    return routes


def _absent(reason: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    async def refuse() -> Response:
        raise HTTPException(404, reason)

    return refuse


def pool_of(request: Request) -> Pool:
    """Return the pool of the model that the path names, in the version that it names, if it names one.

    Raises:
        ServiceError: `unknown_variant`.
    """
    service, pools = service_of(request), service_of(request).pools
    name, version = request.path_params["model"], request.path_params.get("version")
    pool = pools.get(variant_of(service, name))
    if pool is None:
        expected = ", ".join(model_of(service, variant) for variant in pools)
        raise ServiceError("unknown_variant", f"expected one of the models {expected}")
    if version not in (None, version_of(service, pool)):
        raise ServiceError("unknown_variant", f"the version of {name} is {version_of(service, pool)}")
    return pool


def digest_of(service: Service, pool: Pool) -> str:
    """Return the checkpoint's SHA-256 in hexadecimal; empty if only the loaded engine knows it and none is."""
    return service.checkpoint.sha256 or (pool.info.checkpoint_sha256 if pool.info else "")


def version_of(service: Service, pool: Pool) -> str:
    """Return the version that stands for the checkpoint."""
    return documents.version(digest_of(service, pool))


def backend_of(pool: Pool) -> str:
    """Return the backend that runs the variant, or, before it is loaded, those that could."""
    return pool.info.backend if pool.info else VARIANTS[pool.variant].backend


async def server() -> documents.ServerMetadata:
    return documents.ServerMetadata(name="precision-service", version=__version__, extensions=EXTENSIONS)


async def live() -> documents.Live:
    return documents.Live(live=True)


async def ready(request: Request) -> Response:
    is_ready = service_of(request).is_ready
    return JSONResponse({"ready": is_ready}, 200 if is_ready else 503)


async def metadata(request: Request) -> documents.ModelMetadata:
    service, pool = service_of(request), pool_of(request)
    return documents.ModelMetadata(
        name=model_of(service, pool.variant),
        versions=[version_of(service, pool)],
        platform=backend_of(pool),
        inputs=[documents.TensorMetadata(name=documents.INPUT, datatype="UINT8", shape=[-1, *pool.settings.shape])],
        outputs=[
            documents.TensorMetadata(name=documents.OUTPUT, datatype="FP32", shape=[-1, len(service.checkpoint.labels)])
        ],
        properties={"checkpoint_sha256": digest_of(service, pool)},
    )


async def model_ready(request: Request) -> Response:
    service, pool = service_of(request), pool_of(request)
    is_up = pool.state == State.READY and not service.stops()
    return JSONResponse({"name": model_of(service, pool.variant), "ready": is_up}, 200 if is_up else 503)


async def config(request: Request) -> documents.ModelConfig:
    service, pool = service_of(request), pool_of(request)
    backend = backend_of(pool)
    return documents.ModelConfig(
        name=model_of(service, pool.variant),
        platform=backend,
        backend=backend,
        max_batch_size=pool.settings.max_images,
        input=[documents.ConfigTensor(name=documents.INPUT, data_type="TYPE_UINT8", dims=list(pool.settings.shape))],
        output=[
            documents.ConfigTensor(name=documents.OUTPUT, data_type="TYPE_FP32", dims=[len(service.checkpoint.labels)])
        ],
        dynamic_batching={"preferred_batch_size": [pool.max_batch_size]},
    )


async def _statistics(request: Request) -> dict[str, documents.ModelStatistics]:
    """Return the statistics of each variant. Between two variants other tasks run."""
    service, rows = service_of(request), {}
    for name, pool in service.pools.items():
        rows[name] = statistics(pool, service.metrics, model_of(service, name), version_of(service, pool))
        await asyncio.sleep(0)
    return rows


async def index(request: Request) -> list[documents.IndexEntry]:
    service = service_of(request)
    deadline = Deadline(time.perf_counter(), service.settings.request_timeout)
    try:
        with service.budget.share(headers_of(request)) as share:
            body = await received(request, service.settings, share, deadline)
            text = inflated(body.body, body.encoding, SMALL_BYTES)
            check_json(text, 0)
            wanted = documents.IndexRequest.model_validate_json(text or b"{}")
    except ValidationError as error:
        raise ServiceError("malformed", f'expected nothing or {{"ready": true}}: {first_mistake(error)}') from None
    return [
        documents.IndexEntry(
            name=model_of(service, variant),
            version=version_of(service, pool),
            state=STATES[pool.state],
            reason=pool.reason,
        )
        for variant, pool in service.pools.items()
        if pool.state == State.READY or not wanted.ready
    ]


async def infer(request: Request) -> Response:
    return await predicted(request, variant_of(service_of(request), request.path_params["model"]), _answer)


async def _answer(prediction: Prediction) -> Response:
    pool, deadline = pool_of(prediction.request), prediction.deadline()
    await prediction.admit(pool)
    inference = await prediction.read(tensors.inference_of, deadline)
    tensors.check_classification(inference.request, len(prediction.service.checkpoint.labels))
    if microseconds := inference.request.parameters.timeout:
        deadline = deadline.or_clients(microseconds / 1e6)
    executed = await prediction.execute(pool, inference.pixels, deadline)
    service = prediction.service
    model, version = model_of(service, pool.variant), version_of(service, pool)
    body, headers = tensors.respond(inference.request, executed.logits, service.checkpoint.labels, model, version)
    return prediction.answered(executed, body, headers)

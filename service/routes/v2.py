"""The Open Inference Protocol v2 under `/v2`: every variant is a model, `resnet18-fp32` and so on."""

import time
from collections.abc import Callable, Coroutine
from functools import partial
from typing import Any

from fastapi import APIRouter
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from models.cifar10 import CLASSES
from models.variants import VARIANTS
from service import __version__, bodies
from service.deadline import Deadline
from service.errors import ServiceError
from service.routes.counted import counted
from service.routes.info import is_ready, pools_of
from service.routes.openapi import INFER, PREDICTION, errors, reference
from service.routes.predict import answered, deadline_of, execute, was_read
from service.settings import Settings
from service.v2 import documents, tensors
from service.v2.statistics import statistics
from service.workers.pool import Pool

PREFIX = "resnet18-"
EXTENSIONS = ["binary_tensor_data", "classification", "model_configuration", "model_repository", "statistics"]
STATES = {"ready": "READY", "starting": "LOADING", "failed": "UNAVAILABLE", "unavailable": "UNAVAILABLE"}

MODEL = {"name": "model", "in": "path", "required": True, "schema": {"type": "string", "examples": ["resnet18-int8"]}}
VERSION = {
    "name": "version",
    "in": "path",
    "required": True,
    "schema": {"type": "string", "examples": ["f0a1b2c3d4e5"]},
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
"""What Triton's clients can ask for besides, and why it is not there."""
INDEX = {"requestBody": {"content": {"application/json": {"schema": reference(documents.IndexRequest)}}}}


def router() -> APIRouter:
    routes = APIRouter(tags=["open inference protocol"])
    add = routes.add_api_route
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
    """The variant that the path names as a model, of its version where one is named.

    Raises:
        ServiceError: `unknown_variant`.
    """
    pools = pools_of(request)
    name, version = request.path_params["model"], request.path_params.get("version")
    pool = pools.get(name.removeprefix(PREFIX)) if name.startswith(PREFIX) else None
    if pool is None:
        raise ServiceError("unknown_variant", f"expected one of the models {', '.join(map(model_of, pools.values()))}")
    if version not in (None, version_of(request, pool)):
        raise ServiceError("unknown_variant", f"the version of {name} is {version_of(request, pool)}")
    return pool


def model_of(pool: Pool) -> str:
    return PREFIX + pool.variant


def version_of(request: Request, pool: Pool) -> str:
    """The first 12 digits of the checkpoint's SHA-256; an INT8 artifact's is known once it is loaded."""
    digest: str = request.app.state.checkpoint.get("sha256") or pool.card.get("checkpoint_sha256", "")
    return digest[:12]


async def server() -> documents.ServerMetadata:
    return documents.ServerMetadata(name="precision-service", version=__version__, extensions=EXTENSIONS)


async def live() -> documents.Live:
    return documents.Live(live=True)


async def ready(request: Request) -> Response:
    return JSONResponse({"ready": is_ready(request)}, 200 if is_ready(request) else 503)


def backend_of(pool: Pool) -> str:
    """What runs the variant, or could where it is not loaded."""
    backend: str = pool.card.get("backend") or VARIANTS[pool.variant].backend
    return backend


async def metadata(request: Request) -> documents.ModelMetadata:
    pool = pool_of(request)
    return documents.ModelMetadata(
        name=model_of(pool),
        versions=[version_of(request, pool)],
        platform=backend_of(pool),
        inputs=[documents.TensorMetadata(name=documents.INPUT, datatype="UINT8", shape=[-1, *pool.settings.shape])],
        outputs=[documents.TensorMetadata(name=documents.OUTPUT, datatype="FP32", shape=[-1, len(CLASSES)])],
    )


async def model_ready(request: Request) -> Response:
    pool = pool_of(request)
    is_up = pool.state == "ready"
    return JSONResponse({"name": model_of(pool), "ready": is_up}, 200 if is_up else 503)


async def config(request: Request) -> documents.ModelConfig:
    pool = pool_of(request)
    backend = backend_of(pool)
    return documents.ModelConfig(
        name=model_of(pool),
        platform=backend,
        backend=backend,
        max_batch_size=pool.settings.max_images,
        input=[documents.ConfigTensor(name=documents.INPUT, data_type="TYPE_UINT8", dims=list(pool.settings.shape))],
        output=[documents.ConfigTensor(name=documents.OUTPUT, data_type="TYPE_FP32", dims=[len(CLASSES)])],
        dynamic_batching={"preferred_batch_size": [pool.max_batch_size]},
    )


async def stats(request: Request) -> documents.Statistics:
    pools = [pool_of(request)] if "model" in request.path_params else list(pools_of(request).values())
    metrics = request.app.state.metrics
    rows = [statistics(pool, metrics, model_of(pool), version_of(request, pool)) for pool in pools]
    return documents.Statistics(model_stats=rows)


async def index(request: Request) -> list[documents.IndexEntry]:
    settings: Settings = request.app.state.settings
    deadline = Deadline(time.perf_counter(), settings.request_timeout)
    try:
        async with bodies.received(request, settings, deadline) as body:
            wanted = documents.IndexRequest.model_validate_json(body or b"{}")
    except ValidationError as error:
        raise ServiceError(
            "malformed", f'expected nothing or {{"ready": true}}: {bodies.first_mistake(error)}'
        ) from None
    return [
        documents.IndexEntry(
            name=model_of(pool), version=version_of(request, pool), state=STATES[pool.state], reason=pool.reason
        )
        for pool in pools_of(request).values()
        if pool.state == "ready" or not wanted.ready
    ]


async def infer(request: Request) -> Response:
    name: str = request.path_params["model"]
    return await counted(_infer, request, name.removeprefix(PREFIX) if name.startswith(PREFIX) else "")


async def _infer(request: Request, variant: str) -> Response:
    pool, deadline = pool_of(request), deadline_of(request)
    pool.check()
    settings: Settings = request.app.state.settings
    async with bodies.received(request, settings, deadline) as body:
        received = time.perf_counter()
        parse = partial(tensors.parse, request.headers, body)
        wanted, pixels = await bodies.timely(parse, len(body), settings, deadline)
    phases = was_read(request, len(pixels), received)
    if microseconds := wanted.parameters.timeout:
        deadline = deadline.or_clients(microseconds / 1e6)
    done = await execute(request, pool, pixels, phases, deadline)
    assembling = time.perf_counter()
    answer, headers = tensors.respond(
        wanted, done.logits, request.app.state.checkpoint["classes"], model_of(pool), version_of(request, pool)
    )
    return Response(answer, headers=headers | answered(request, variant, done, phases, assembling))

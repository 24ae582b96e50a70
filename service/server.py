"""Put the service together."""

from collections.abc import Callable, Iterable
from dataclasses import asdict

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from models import checkpoint, files, nvml
from models.evaluation import record as evaluation
from models.variants import with_references
from service import __version__, bodies
from service.errors import ServiceError, http_error
from service.http.guard import HEALTH, Guard
from service.http.keys import Keys
from service.litserver import PrecisionServer
from service.logs import RequestLog
from service.metrics import Metrics
from service.routes import info, page, predict, v2
from service.routes.counted import Front, as_service_error, error_response, problem_response, request_id_of
from service.routes.openapi import describe
from service.settings import Settings
from service.shadow import REFERENCE, Shadow, in_background
from service.tracing import Tracing, provider
from service.workers.api import PrecisionAPI
from service.workers.memory import Process

REPLACED = {"swagger_ui_html", "swagger_ui_redirect", "redoc_html"}
"""FastAPI's own pages, which load from a content delivery network."""


def build_server(
    settings: Settings,
    api: Callable[[str, Settings], PrecisionAPI] = PrecisionAPI,
    metrics: Callable[[Iterable[str]], Metrics] = Metrics,
) -> PrecisionServer:
    """The service, ready to `run`.

    `api` makes the LitAPI of a variant (tests give one with faults), `metrics` what observes (a benchmark gives one
    that does not).

    Raises:
        CheckpointError: the weights are missing or damaged.
        TracingUnavailable: traces were asked for, and cannot be sent.
    """
    card = checkpoint.inspect(settings.checkpoint or files.default_path(), settings.preparation)
    evaluations = evaluation.read(settings.checkpoint or files.default_path())
    settings = settings.model_copy(update={"input_size": card.input_size})
    names = with_references(settings.variants, nvml.count())
    observer = metrics(names)
    apis = [api(name, settings) for name in names]
    background = api(REFERENCE, in_background(settings)) if settings.shadow_share else None
    server = PrecisionServer(apis, settings, observer, background)
    observer.watch(
        queue_depths=lambda: {name: pool.queue.images for name, pool in server.pools.items()},
        workers=lambda: _workers(server),
    )
    app: FastAPI = server.app
    app.title, app.version = "Precision service", __version__
    app.description = "CIFAR-10 ResNet18 in FP32, FP16 and INT8, each with its route, measured honestly."
    app.state.settings, app.state.metrics, app.state.log = settings, observer, RequestLog(names)
    app.state.trace = Tracing(provider()) if settings.traces else None
    app.state.pools, app.state.checkpoint = server.pools, asdict(card)
    app.state.shadow = Shadow(settings.shadow_share, server.background, observer, settings.request_timeout)
    app.state.evaluations = evaluations
    app.state.held = bodies.Held(max(settings.max_held_bytes, settings.max_body_bytes))
    server.front = Front(app, "/predict/", predict.predict)
    app.router.routes = [route for route in app.router.routes if getattr(route, "name", "") not in REPLACED]
    app.router.redirect_slashes = False  # to wherever the client's Host header says
    app.include_router(page.router(with_index=not settings.no_page))
    app.include_router(predict.router())
    app.include_router(v2.router())
    app.include_router(info.router())
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(RequestValidationError, _problem)
    app.add_exception_handler(ServiceError, _problem)
    app.add_exception_handler(Exception, _problem)
    keys, open_paths = Keys(settings.keys()), open_paths_of(settings)
    describe(app, open_paths, has_keys=bool(keys))
    if keys:
        server.front = Guard(server.front, app, keys, open_paths)
    return server


def _workers(server: PrecisionServer) -> dict[str, list[Process]]:
    background = [server.background] if server.background else []
    return {pool.variant: pool.processes for pool in (*server.pools.values(), *background)}


def open_paths_of(settings: Settings) -> set[str]:
    """What can be asked for without a key: a browser shows none when it opens a page."""
    return {*HEALTH, *page.paths(with_index=not settings.no_page), *(["/metrics"] if settings.open_metrics else [])}


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    request_id = request_id_of(request)
    body = http_error(error.status_code, error.detail) | {"request_id": request_id}
    headers = dict(error.headers or {}) | {"X-Request-ID": request_id}
    return problem_response(request, body, headers)


async def _problem(request: Request, error: Exception) -> Response:
    return error_response(request, as_service_error(error), request_id_of(request))

"""Puts the service together: settings in, a server that can run out."""

from collections.abc import Callable, Iterable, Sequence

from fastapi import FastAPI
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp

from models import sample
from models.evaluation import record as evaluation
from models.topology import name_of
from service import __version__
from service.bodies import Budget
from service.errors import ServiceError, http_error
from service.http import origin
from service.http.guard import HEALTH, Guard
from service.http.keys import Keys
from service.http.prefix import Prefix
from service.litserver import PrecisionServer
from service.logs import RequestLog, dropped_lines
from service.metrics import Metrics
from service.prediction import Service
from service.problems import as_service_error, error_response, problem_response, request_id_of
from service.refusals import Refusals
from service.routes import compare, info, page, predict, v2
from service.routes.front import Front
from service.routes.openapi import describe
from service.settings import Settings
from service.shadow import Shadow
from service.tracing import Tracing, provider
from service.workers.api import PrecisionAPI
from service.workers.launch import MakeAPI, Plan, plan
from service.workers.memory import Process, Readings

REPLACED = {"swagger_ui_html", "swagger_ui_redirect", "redoc_html", "openapi"}
"""Names of FastAPI's own routes: its pages load from elsewhere, and it makes /openapi.json anew for each request."""


def build_server(
    settings: Settings, api: MakeAPI = PrecisionAPI, metrics: Callable[[Iterable[str]], Metrics] = Metrics
) -> PrecisionServer:
    """Return the service, ready to `run`: see `plan` and `assemble`."""
    return assemble(plan(settings, api), metrics)


def assemble(plan: Plan, metrics: Callable[[Iterable[str]], Metrics] = Metrics) -> PrecisionServer:
    """Return the service of a plan, ready to `run`.

    Args:
        plan: the weights and the workers.
        metrics: makes the observer of these variants (a benchmark passes one that can be switched off).

    Raises:
        TracingUnavailable: traces were asked for and cannot be sent.
    """
    settings, card, observer = plan.settings, plan.card, metrics(plan.apis)
    assert settings.checkpoint is not None
    server = PrecisionServer(plan, observer)
    observer.watch(
        queue_depths=lambda: {name: pool.queue.images for name, pool in server.pools.items()},
        memory=Readings(lambda: _workers(server)),
        dropped_lines=dropped_lines,
    )
    server.app.state.service = Service(
        settings=settings,
        pools=server.pools,
        metrics=observer,
        log=RequestLog(plan.apis),
        trace=Tracing(provider()) if settings.traces else None,
        shadow=Shadow(settings.shadow_share, server.background, observer, settings.request_timeout),
        checkpoint=card,
        network=name_of(card.architecture or ""),
        evaluations=evaluation.read(settings.checkpoint),
        budget=Budget(max(settings.max_held_bytes, 2 * settings.max_body_bytes)),
        decoders=server.decoders,
        stops=lambda: server.is_stopping,
    )
    _add_routes(server.app, settings, page.samples_of(sample.labelled_sample(settings.checkpoint, card)))
    server.front = _front(server.app, settings)
    return server


def _add_routes(app: FastAPI, settings: Settings, samples: Sequence[page.Sample]) -> None:
    card = app.state.service.checkpoint
    app.title, app.version = "Precision service", __version__
    app.description = (
        f"{card.architecture}, {len(card.labels)} classes, in several precisions, each with its route, "
        "measured honestly."
    )
    app.router.routes = [route for route in app.router.routes if getattr(route, "name", "") not in REPLACED]
    app.router.redirect_slashes = False  # a redirect would go wherever the client's Host header says
    app.include_router(page.router(settings.root_path or "", with_index=not settings.no_page, samples=samples))
    for routes in (predict, compare, v2, info):
        app.include_router(routes.router())
    app.add_exception_handler(HTTPException, _http_problem)
    app.add_exception_handler(ServiceError, _problem)
    app.add_exception_handler(Exception, _problem)


def _front(app: FastAPI, settings: Settings) -> ASGIApp:
    """Return the ASGI app to serve: the short cut for predictions, behind guard, check of origins, CORS and prefix."""
    front = Front(app, "/predict/", predict.predict, Refusals(app.state.service))
    keys, open_paths = Keys(settings.keys()), open_paths_of(settings)
    classes = len(app.state.service.checkpoint.labels)
    describe(app, open_paths, settings.root_path or "", has_keys=bool(keys), classes=classes)
    guarded = Guard(front, app, keys, open_paths) if keys else front
    checks = origin.rules(settings, has_keys=bool(keys))
    checked = origin.OriginCheck(guarded, app, checks) if checks else guarded
    shared = origin.cors(checked, settings.allowed_origins) if settings.allowed_origins else checked
    return Prefix(shared, settings.root_path) if settings.root_path else shared


def _workers(server: PrecisionServer) -> dict[str, list[Process]]:
    """Return each pool's name -> its worker processes."""
    background = [server.background] if server.background else []
    return {pool.variant: pool.processes for pool in (*server.pools.values(), *background)}


def open_paths_of(settings: Settings) -> set[str]:
    """Return the paths that need no key. The pages are among them: a browser shows no key when it opens one."""
    return {*HEALTH, *page.paths(with_index=not settings.no_page), *(["/metrics"] if settings.open_metrics else [])}


async def _http_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    request_id = request_id_of(request)
    body = http_error(error.status_code, error.detail, request_id)
    headers = dict(error.headers or {}) | {"X-Request-ID": request_id}
    return problem_response(request, body, headers)


async def _problem(request: Request, error: Exception) -> Response:
    return error_response(request, as_service_error(error), request_id_of(request))

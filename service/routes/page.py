"""The pages at / and /docs: static files, all of them from this service."""

import io
import json
from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from importlib.resources import files
from typing import Any

import numpy as np
from fastapi import APIRouter
from numpy.typing import NDArray
from PIL import Image
from starlette.responses import RedirectResponse, Response

from models.sample import Labelled
from service.http.sliced import SlicedResponse

PAGE, SWAGGER = files("service") / "page", files("fastapi_offline") / "static"
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' blob: data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
"""The Content-Security-Policy. Inline styles are needed by Swagger UI, and for the widths of the page's bars."""
HEADERS = {
    "Content-Security-Policy": POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-cache",
}
HTML, CSS, JS = "text/html; charset=utf-8", "text/css; charset=utf-8", "text/javascript; charset=utf-8"
DOCS = {
    "/docs": (PAGE / "docs.html", HTML),
    "/docs/docs.js": (PAGE / "docs.js", JS),
    "/docs/swagger-ui.css": (SWAGGER / "swagger-ui.css", CSS),
    "/docs/swagger-ui-bundle.js": (SWAGGER / "swagger-ui-bundle.js", JS),
}
INDEX = {
    "/": (PAGE / "index.html", HTML),
    "/page/page.css": (PAGE / "page.css", CSS),
    "/page/page.js": (PAGE / "page.js", JS),
}
SAMPLES = "/page/samples.json"
MOST_SAMPLES = 10
"""Pictures that the page shows, in one row."""


@dataclass(frozen=True)
class Sample:
    """A picture to try the service with."""

    label: str
    png: bytes


def samples_of(labelled: Labelled | None) -> list[Sample]:
    """Return at most MOST_SAMPLES of the labelled images, which belong to as many different classes as possible."""
    if labelled is None:
        return []
    known = [np.flatnonzero(labelled.labels == index).tolist() for index in range(len(labelled.classes))]
    turns = [images[turn] for turn in range(MOST_SAMPLES) for images in known if turn < len(images)]
    chosen = sorted(turns[:MOST_SAMPLES], key=lambda index: int(labelled.labels[index]))
    return [Sample(labelled.classes[labelled.labels[index]], _png(labelled.images[index])) for index in chosen]


def _png(pixels: NDArray[np.uint8]) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(pixels.transpose(1, 2, 0)).save(buffer, "PNG")
    return buffer.getvalue()


def paths(with_index: bool) -> set[str]:
    """Return the paths of the files that every service has. Samples are not among them: they may be private."""
    return {"/", *DOCS, *INDEX} if with_index else {"/", *DOCS}


def router(root_path: str, with_index: bool, samples: Sequence[Sample]) -> APIRouter:
    """Return the routes of the files, which are read once. Without the index page, / leads to /docs.

    `root_path` is the path under which a proxy shows the service. The files themselves have relative links.
    """
    routes = APIRouter(include_in_schema=False)
    for path, (file, kind) in (DOCS | INDEX if with_index else DOCS).items():
        routes.add_api_route(path, _endpoint(file.read_bytes(), kind))
    if with_index:
        shown = {f"page/sample-{index}.png": sample for index, sample in enumerate(samples)}
        listed = [{"path": path, "label": sample.label} for path, sample in shown.items()]
        routes.add_api_route(SAMPLES, _endpoint(json.dumps(listed).encode(), "application/json"))
        for path, sample in shown.items():
            routes.add_api_route(f"/{path}", _endpoint(sample.png, "image/png"))
    else:
        routes.add_api_route("/", partial(_to_docs, root_path))
    return routes


def _endpoint(content: bytes, kind: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    async def answer() -> Response:
        return SlicedResponse(content, headers=HEADERS, media_type=kind)

    return answer


async def _to_docs(root_path: str) -> Response:
    return RedirectResponse(f"{root_path}/docs")

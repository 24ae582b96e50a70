"""The pages at / and /docs: static files, all of them from this service."""

import io
from collections.abc import Callable, Coroutine
from functools import partial
from importlib.resources import files
from typing import Any

from fastapi import APIRouter
from PIL import Image
from starlette.responses import RedirectResponse, Response

from models.cifar10 import CLASSES, sample
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
SAMPLES = {f"/page/sample-{label}.png": index for index, label in enumerate(CLASSES)}


def paths(with_index: bool) -> set[str]:
    """Return the paths of all files that are served."""
    return {"/", *DOCS, *INDEX, *SAMPLES} if with_index else {"/", *DOCS}


def router(root_path: str, with_index: bool) -> APIRouter:
    """Return the routes of the files, which are read once. Without the index page, / leads to /docs.

    `root_path` is the path under which a proxy shows the service. The files themselves have relative links.
    """
    routes = APIRouter(include_in_schema=False)
    for path, (file, kind) in (DOCS | INDEX if with_index else DOCS).items():
        routes.add_api_route(path, _endpoint(file.read_bytes(), kind))
    if with_index:
        images = sample()[0]
        for path, index in SAMPLES.items():
            buffer = io.BytesIO()
            Image.fromarray(images[index].transpose(1, 2, 0)).save(buffer, "PNG")
            routes.add_api_route(path, _endpoint(buffer.getvalue(), "image/png"))
    else:
        routes.add_api_route("/", partial(_to_docs, root_path))
    return routes


def _endpoint(content: bytes, kind: str) -> Callable[[], Coroutine[Any, Any, Response]]:
    async def answer() -> Response:
        return SlicedResponse(content, headers=HEADERS, media_type=kind)

    return answer


async def _to_docs(root_path: str) -> Response:
    return RedirectResponse(f"{root_path}/docs")

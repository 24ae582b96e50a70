"""Behind a proxy's path, and called by pages of other sites (CORS)."""

import asyncio
from typing import Any

import httpx
import pytest

from service.server import build_server
from service.settings import Settings

PAGE = "https://app.example.org"
PREFLIGHT = {"access-control-request-method": "POST", "access-control-request-headers": "content-type,x-api-key"}


def answers(requests: list[tuple[str, str, dict[str, str]]], **settings: Any) -> list[httpx.Response]:
    """Return the answers of a service with these settings to requests of method, path and headers."""
    app = build_server(Settings(variants=("fp32",), **settings)).front

    async def ask() -> list[httpx.Response]:
        async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://127.0.0.1") as client:
            return [await client.request(method, path, headers=headers) for method, path, headers in requests]

    return asyncio.run(ask())


@pytest.mark.parametrize("prefix", ["/precision", ""])
def test_a_proxy_may_keep_the_prefix_or_remove_it(prefix: str) -> None:
    """Page, description and predictions answer under both paths. The page's links are relative."""
    paths = ("/", "/docs", "/page/page.js", "/openapi.json", "/health/live")
    found = answers([("GET", prefix + path, {}) for path in paths], root_path="/precision")
    assert [answer.status_code for answer in found] == [200] * len(paths)
    assert found[3].json()["servers"] == [{"url": "/precision"}]
    assert 'href="/' not in found[0].text + found[1].text
    (predicted,) = answers([("POST", f"{prefix}/predict/fp64", {})], root_path="/precision")
    assert predicted.json()["type"].endswith(":unknown_variant")


def test_a_path_that_only_begins_like_the_prefix_is_unknown() -> None:
    """The prefix ends at a slash; without --root-path no path has one."""
    (longer,) = answers([("GET", "/precisions/docs", {})], root_path="/precision")
    (without,) = answers([("GET", "/precision/docs", {})])
    assert (longer.status_code, without.status_code) == (404, 404)


def test_a_redirect_stays_under_the_prefix() -> None:
    """Without the page, the prefix alone leads to the description below it."""
    (answer,) = answers([("GET", "/precision", {})], root_path="/precision", no_page=True)
    assert answer.headers["location"] == "/precision/docs"


def test_pages_of_allowed_origins_may_post_and_read() -> None:
    """The preflight passes, and a post from there is judged by its content, though it comes from another site."""
    told = {"origin": PAGE, "sec-fetch-site": "cross-site"}
    requests = [("OPTIONS", "/predict/fp32", told | PREFLIGHT), ("POST", "/predict/fp64", told)]
    preflight, post = answers(requests, allowed_origins=(PAGE,))
    assert preflight.status_code == 200
    assert preflight.headers["access-control-allow-origin"] == PAGE
    assert post.status_code == 404
    assert post.headers["access-control-allow-origin"] == PAGE
    assert "Server-Timing" in post.headers["access-control-expose-headers"]


@pytest.mark.parametrize(("origins", "status"), [(None, 403), ((PAGE,), 403), (("*",), 404)])
def test_other_pages_may_not(origins: tuple[str, ...] | None, status: int) -> None:
    """A post from an origin that is not allowed gets 403; with `*` every origin is allowed."""
    told = {"origin": "https://evil.example", "sec-fetch-site": "cross-site"}
    (post,) = answers([("POST", "/predict/fp64", told)], allowed_origins=origins)
    assert post.status_code == status
    assert post.headers.get("access-control-allow-origin") == ("*" if status == 404 else None)


def test_a_preflight_needs_no_key() -> None:
    """A browser sends none with it. The post behind it needs one, and its page can read that it does."""
    told = {"origin": PAGE}
    requests = [("OPTIONS", "/predict/fp32", told | PREFLIGHT), ("POST", "/predict/fp32", told)]
    preflight, post = answers(requests, allowed_origins=(PAGE,), api_keys="first-0123456789-abc")
    assert (preflight.status_code, post.status_code) == (200, 401)
    assert post.headers["access-control-allow-origin"] == PAGE

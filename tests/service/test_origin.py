"""Pages of other sites, and foreign host names: what the rules say, and the app's answers."""

import asyncio
import socket

import httpx
import pytest
from starlette.types import ASGIApp

from service.http.origin import rules
from service.server import build_server
from service.settings import Settings
from tests.service.pictures import png

LOCAL = Settings(variants=("fp32",))
EVERYWHERE = Settings(variants=("fp32",), host="0.0.0.0", allow_anonymous=True)  # noqa: S104 - nothing listens
KEY = "first-0123456789-abc"


def outcome(settings: Settings, method: str = "POST", host: str = "127.0.0.1:8000", **headers: str) -> str:
    """Return `ok`, or the word of the error that the rules of these settings object with."""
    checks = rules(settings, has_keys=bool(settings.keys()))
    sent = {name.replace("_", "-").encode(): value.encode() for name, value in ({"host": host} | headers).items()}
    error = checks.objection(method, sent) if checks else None
    return error.reason.word if error else "ok"


def allowing(settings: Settings, *names: str) -> Settings:
    return settings.model_copy(update={"allowed_hosts": names})


@pytest.mark.parametrize(
    ("site", "expected"),
    [("cross-site", "cross_site"), ("same-site", "ok"), ("same-origin", "ok"), ("none", "ok"), ("odd", "cross_site")],
)
@pytest.mark.parametrize("settings", [LOCAL, EVERYWHERE], ids=["loopback", "everywhere"])
def test_a_browser_says_where_a_post_comes_from(settings: Settings, site: str, expected: str) -> None:
    """Sec-Fetch-Site decides, whatever Origin says: a proxy may have replaced Host."""
    assert outcome(settings, sec_fetch_site=site) == expected
    assert outcome(settings, sec_fetch_site=site, origin="https://evil.example") == expected


@pytest.mark.parametrize(
    ("origin", "expected"),
    [
        ("http://service.lan:8000", "ok"),
        ("http://SERVICE.lan.", "ok"),
        ("http://service.lan:3000", "ok"),
        ("http://lan", "cross_site"),
        ("http://service.lan.evil.example", "cross_site"),
        ("null", "cross_site"),
        ("http://[", "cross_site"),
    ],
)
def test_without_sec_fetch_site_the_origin_decides(origin: str, expected: str) -> None:
    """A browser that sends Origin alone may post from a page on the service's own host, on any port."""
    assert outcome(EVERYWHERE, host="service.lan:8000", origin=origin) == expected


@pytest.mark.parametrize(
    ("method", "expected"),
    [("GET", "ok"), ("HEAD", "ok"), ("OPTIONS", "ok"), ("PUT", "cross_site"), ("DELETE", "cross_site")],
)
def test_a_link_from_another_site_may_be_followed(method: str, expected: str) -> None:
    """Methods that compute nothing pass: their answers cannot be read from another site."""
    assert outcome(LOCAL, method, sec_fetch_site="cross-site") == expected


def test_a_program_sends_neither_header() -> None:
    """A request without Sec-Fetch-Site and Origin passes."""
    assert outcome(LOCAL) == outcome(EVERYWHERE) == "ok"


@pytest.mark.parametrize(
    "host",
    ["localhost", "LOCALHOST:8000", "localhost.", "a.localhost", "127.0.0.1", "127.0.0.2:80", "[::1]:8000", "[::1]",
     "10.1.2.3", "service:8000", "host.docker.internal:8000", "", socket.gethostname()],
)  # fmt: skip
def test_own_names_are_known(host: str) -> None:
    """Addresses, names without a dot, and names that always lead to this machine are the service's own."""
    assert outcome(LOCAL, "GET", host) == "ok"


@pytest.mark.parametrize(
    "host",
    ["evil.example", "evil.example:8000", "127.0.0.1.evil.example", "localhost.evil.example", "notlocalhost.example",
     "[::1].evil.example", "1.2.3.4.5", "evil.example:80:80", "@evil.example"],
)  # fmt: skip
def test_foreign_names_are_refused_on_loopback(host: str) -> None:
    """Another name is refused, with any method, on a loopback address only: elsewhere a balancer may give any name."""
    assert outcome(LOCAL, "GET", host) == "foreign_host"
    assert outcome(EVERYWHERE, "GET", host) == "ok"


@pytest.mark.parametrize("settings", [LOCAL, EVERYWHERE], ids=["loopback", "everywhere"])
def test_allowed_hosts_are_the_only_foreign_ones(settings: Settings) -> None:
    """Listed names, and names below a `*.` one, may be in Host and may post; then Host is checked on every address."""
    listed = allowing(settings, "Service.example", "*.portal.example")
    assert outcome(listed, host="service.example:80") == outcome(listed, host="a.portal.example") == "ok"
    assert outcome(listed, host="portal.example") == "foreign_host"
    assert outcome(listed, sec_fetch_site="cross-site", origin="https://a.portal.example:444") == "ok"
    assert outcome(listed, sec_fetch_site="cross-site", origin="https://portal.example") == "cross_site"
    assert outcome(listed, sec_fetch_site="cross-site") == "cross_site"
    assert outcome(allowing(settings, "*"), host="evil.example", sec_fetch_site="cross-site") == "ok"


def test_with_keys_only_listed_hosts_are_checked() -> None:
    """Another site's page has no key, so keys replace both checks, unless the settings list hosts."""
    guarded = Settings(variants=("fp32",), api_keys=KEY)
    assert outcome(guarded, host="evil.example", sec_fetch_site="cross-site") == "ok"
    assert outcome(allowing(guarded, "a.example"), host="evil.example") == "foreign_host"
    assert outcome(allowing(guarded, "a.example"), host="a.example", sec_fetch_site="cross-site") == "ok"


@pytest.fixture(scope="module")
def front() -> ASGIApp:
    """Return the app as it is served on loopback; its workers never start."""
    return build_server(LOCAL).front


def ask(front: ASGIApp, method: str, path: str, **headers: str) -> httpx.Response:
    """Return the app's answer to one request of a browser."""

    async def send() -> httpx.Response:
        transport = httpx.ASGITransport(front)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1:8000") as client:
            sent = {name.replace("_", "-"): value for name, value in headers.items()}
            return await client.request(method, path, headers=sent, content=png(1) if method == "POST" else None)

    return asyncio.run(send())


@pytest.mark.parametrize(
    ("header", "status", "word"),
    [({"sec_fetch_site": "cross-site"}, 403, "cross_site"), ({"host": "evil.example"}, 421, "foreign_host")],
)
@pytest.mark.parametrize(
    ("path", "series"),
    [
        ("/predict/fp32", 'precision_requests_total{{outcome="{word}",variant="fp32"}} 1.0'),
        ("/v2/models/resnet18-nothing/infer", 'precision_requests_total{{outcome="{word}",variant="unknown"}} 1.0'),
        ("/compare", 'precision_compare_requests_total{{outcome="{word}"}} 1.0'),
    ],
)
def test_a_refusal_is_counted_and_says_what_to_do(
    front: ASGIApp, path: str, series: str, header: dict[str, str], status: int, word: str
) -> None:
    """A refused prediction or comparison counts once, as an error of the table that names the setting."""
    answer = ask(front, "POST", path, **header)
    assert answer.status_code == status
    assert "--allowed-hosts (PRECISION_ALLOWED_HOSTS)" in answer.json().get("detail", answer.json().get("error"))
    assert answer.json().get("type", word).endswith(word)
    assert series.format(word=word) in ask(front, "GET", "/metrics").text


@pytest.mark.parametrize("path", ["/", "/metrics", "/variants", "/openapi.json", "/nothing"])
def test_a_foreign_name_reads_nothing(front: ASGIApp, path: str) -> None:
    """No path answers to a foreign name."""
    assert ask(front, "GET", path, host="evil.example").status_code == 421


def test_a_prober_may_use_any_name(front: ASGIApp) -> None:
    """Health answers whatever Host says."""
    assert ask(front, "GET", "/health/live", host="evil.example").status_code == 200


def test_a_post_of_the_own_page_passes(front: ASGIApp) -> None:
    """A post with the headers of the service's own page reaches the variant, which has not started here."""
    own = {"sec_fetch_site": "same-origin", "origin": "http://127.0.0.1:8000"}
    answer = ask(front, "POST", "/predict/fp32", content_type="image/png", **own)
    assert answer.json()["type"].endswith("starting")

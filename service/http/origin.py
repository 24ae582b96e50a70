"""The check of where a request comes from: a page of another site, or an address with a foreign name.

A browser lets any page send requests to services on its machine and network. So without keys, a page could post images
here, and with a name of its own that it points to this machine (DNS rebinding) it could also read the answers.
"""

import ipaddress
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import urlsplit

from fastapi import FastAPI
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from service.decoding import HEADER_LENGTH
from service.errors import ServiceError
from service.http.guard import HEALTH, refusal
from service.settings import PREFIX, Settings

ANY = "*"
OURS = ("localhost", "*.localhost", "host.docker.internal", "host.containers.internal")
"""Names that lead to this machine everywhere; the last two do so from inside a container."""
HARMLESS = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods that change and compute nothing. A page of another site cannot read their answers without CORS headers."""
OWN_SITE = (b"same-origin", b"same-site", b"none")
"""Values of Sec-Fetch-Site that are allowed; `none` is a user who typed the address or opened a bookmark."""
REQUEST_HEADERS = (
    "Authorization", "X-API-Key", "Content-Type", "Content-Encoding",
    "X-Request-ID", "X-Request-Timeout", HEADER_LENGTH,
)  # fmt: skip
"""Headers that a page of an allowed origin may send."""
ANSWER_HEADERS = (HEADER_LENGTH, "Retry-After", "Server-Timing", "X-Request-ID")
"""Headers of an answer that such a page may read."""
MOST_SHOWN = 100
"""Characters of a foreign name that an error repeats."""


class Names:
    """Host names: exact ones, and `*.example.org` for every name below one."""

    def __init__(self, patterns: Iterable[str]) -> None:
        lowered = [pattern.lower() for pattern in patterns]
        self._exact = frozenset(lowered)
        self._endings = tuple(pattern.removeprefix("*") for pattern in lowered if pattern.startswith("*."))

    def __contains__(self, name: str) -> bool:
        return name in self._exact or name.endswith(self._endings)


@dataclass(frozen=True)
class Rules:
    """The checks that the settings ask for."""

    allowed: Names
    """The names of `--allowed-hosts`, as hosts and as sites whose pages may post."""
    ours: Names | None
    """Names that a Host header may have; None: any."""
    checks_site: bool
    """True if other sites' pages may not post."""
    origins: frozenset[str] = frozenset()
    """The origins of `--allowed-origins`, whose pages may post, too."""

    def objection(self, method: str, headers: Mapping[bytes, bytes]) -> ServiceError | None:
        """Return the error that a request with these ASGI headers ends in, None if it may pass."""
        host = _name_of(headers.get(b"host", b"").decode("latin-1"))
        if self.ours is not None and not self._is_ours(host, self.ours):
            return ServiceError(
                "foreign_host",
                f"expected a Host header with an IP address, localhost or a name in --allowed-hosts "
                f"({PREFIX}ALLOWED_HOSTS), got {host[:MOST_SHOWN]!r}",
            )
        if self.checks_site and method not in HARMLESS and self._is_cross_site(host, headers):
            return ServiceError(
                "cross_site",
                "a page of another site sent this request: list that page's host in --allowed-hosts "
                f"({PREFIX}ALLOWED_HOSTS), or use API keys",
            )
        return None

    def _is_ours(self, host: str, ours: Names) -> bool:
        return "." not in host or host in ours or host in self.allowed or _is_address(host)

    def _is_cross_site(self, host: str, headers: Mapping[bytes, bytes]) -> bool:
        site, origin = headers.get(b"sec-fetch-site"), headers.get(b"origin")
        if site in OWN_SITE or (site is None and origin is None):
            return False
        if (origin or b"").decode("latin-1") in self.origins:
            return False
        page = _page_of((origin or b"").decode("latin-1"))
        return page not in self.allowed and (site is not None or page != host)


def rules(settings: Settings, has_keys: bool) -> Rules | None:
    """Return the checks for these settings, None for no check.

    Only a service on loopback addresses knows all names that it may have: elsewhere a balancer or a cluster gives it
    more. So host names are checked there, and wherever the settings list them. A service with keys needs no check,
    because a page of another site has no key.
    """
    allowed, origins = settings.allowed_hosts or (), frozenset(settings.allowed_origins or ())
    checks_host = bool(allowed) or (settings.is_on_loopback and not has_keys)
    checks_site = not has_keys and ANY not in origins
    if ANY in allowed or not (checks_site or checks_host):
        return None
    ours = Names((*OURS, settings.host, socket.gethostname())) if checks_host else None
    return Rules(Names(allowed), ours, checks_site, origins)


def cors(front: ASGIApp, origins: Sequence[str]) -> ASGIApp:
    """Return the app with the headers by which a browser lets pages of these origins call it and read the answers."""
    return CORSMiddleware(
        front, origins, allow_methods=("GET", "POST"), allow_headers=REQUEST_HEADERS, expose_headers=ANSWER_HEADERS
    )


class OriginCheck:
    """ASGI: a request that the rules object to gets their error. Refused predictions and comparisons are counted."""

    def __init__(self, front: ASGIApp, app: FastAPI, rules: Rules) -> None:
        self.front = front
        self.app = app
        self.rules = rules

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass the request on, or refuse it. Health is open, because a prober may use any name."""
        if scope["type"] != "http" or scope["path"] in HEALTH:
            await self.front(scope, receive, send)
        elif error := self.rules.objection(scope["method"], dict(scope["headers"])):
            scope["app"] = self.app
            response = await refusal(Request(scope, receive), error)
            await response(scope, receive, send)
        else:
            await self.front(scope, receive, send)


def _name_of(authority: str) -> str:
    """Return the host of `host`, `host:port` or `[address]:port`, in lower case and without the dot of a full name."""
    host = authority.strip().lower()
    if host.startswith("["):
        address, _, port = host[1:].partition("]")
        return address if port == "" or port.startswith(":") else host
    return host.partition(":")[0].removesuffix(".")


def _page_of(origin: str) -> str:
    """Return the host of a page's Origin; empty for `null`, which pages without an origin send."""
    try:
        return (urlsplit(origin).hostname or "").removesuffix(".")
    except ValueError:
        return ""


def _is_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return False
    return True

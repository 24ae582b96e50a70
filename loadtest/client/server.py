"""The client of a service's `GET /variants` and `GET /metrics`."""

import http.client
import json
import os
import ssl
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.client.description import Description, description
from loadtest.client.scrape import Scrape, parse
from loadtest.plan import Arm
from loadtest.targets import Target

KEY_VARIABLE = "LOADTEST_API_KEY"
TIMEOUT = 30.0
"""Seconds that the service may take for `/variants` or `/metrics`."""


class ServerError(Exception):
    """The service cannot be reached, or its answer is not understood."""


@dataclass(frozen=True)
class Excluded:
    """A variant that is not measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Hints:
    """What to look at if a URL does not answer as expected."""

    refused: str = "is this the service?"
    """If the status is another one than 200."""
    absent: str = "start the service with `make serve`"
    """If nobody answers."""


@dataclass(frozen=True)
class Service:
    """A running service of this project."""

    url: str

    def describe(self) -> Description:
        """Return the answer to `GET /variants`.

        Raises:
            ServerError: the service cannot be reached, or its answer is not understood.
        """
        try:
            return description(json.loads(fetch(self.url + "/variants")))
        except ValueError as error:
            raise ServerError(f"{self.url}/variants is not an answer of this service ({error})") from None

    def scrape(self) -> Scrape:
        """Return the metrics now.

        Raises:
            ServerError: the service cannot be reached, or its answer is not understood.
        """
        try:
            return parse(fetch(self.url + "/metrics"))
        except (ValueError, LookupError) as error:
            raise ServerError(f"{self.url}/metrics cannot be read ({error})") from None


def credentials() -> dict[str, str]:
    """Return the header with the key of a service that asks for one.

    The key comes from the environment: other users of the machine can see flags, but not the environment.
    """
    return {"X-API-Key": key} if (key := os.environ.get(KEY_VARIABLE)) else {}


def fetch(url: str, hints: Hints = Hints()) -> str:
    """Return the text that a URL answers.

    Raises:
        ServerError: nobody answers, or the status is not 200.
    """
    try:
        request = urllib.request.Request(url, headers=credentials())  # noqa: S310 - the URL is the user's own
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        hint = f"give its key in {KEY_VARIABLE}" if error.code == 401 else hints.refused
        raise ServerError(f"{url} answered {error.code} {error.reason}: {hint}") from None
    except (OSError, ValueError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        raise ServerError(f"{url} cannot be reached ({reason}): {_hint(reason, hints)}") from None


def _hint(reason: object, hints: Hints) -> str:
    if isinstance(reason, ssl.SSLCertVerificationError):
        return "name the file of its certificate authority in SSL_CERT_FILE"
    return hints.absent


def choose(service: Target, described: Description, wanted: Sequence[str]) -> tuple[list[Arm], list[Excluded]]:
    """Return the `wanted` variants that are ready, and the others with the reason. An empty `wanted` means all."""
    rows = {row.name: row for row in described.variants}
    arms, excluded = [], []
    for name in wanted or rows:
        arm_name = f"{name} @ {service.label}" if service.label else name
        row = rows.get(name)
        if row is None:
            excluded.append(Excluded(arm_name, f"the service does not offer it; it offers {', '.join(rows)}"))
        elif row.state != "ready":
            excluded.append(Excluded(arm_name, row.state + (f": {row.reason}" if row.reason else "")))
        else:
            arms.append(Arm(arm_name, service.url, name, row, service.label, service.protocol))
    return arms, excluded

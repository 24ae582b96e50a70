"""What a service says about itself: `GET /variants` and `GET /metrics`."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from loadtest.client.scrape import Scrape, parse
from loadtest.plan import Arm

KEY_VARIABLE = "LOADTEST_API_KEY"
TIMEOUT = 30.0
"""Seconds that the service may take for `/variants` or `/metrics`."""


class ServerError(Exception):
    """The service cannot be reached, or its answer is not what this client understands."""


@dataclass(frozen=True)
class Excluded:
    """A variant that is not measured, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Service:
    """A running service; `label` tells several of them apart."""

    url: str
    label: str = ""

    def describe(self) -> dict[str, Any]:
        """The body of `GET /variants`."""
        try:
            body = json.loads(_get(self.url + "/variants"))
            [str(card["name"]) + str(card["state"]) for card in body["variants"]]
        except (ValueError, KeyError, TypeError) as error:
            raise ServerError(f"{self.url}/variants is not an answer of this service ({error!r})") from None
        return dict(body)

    def scrape(self) -> Scrape:
        """The metrics now."""
        try:
            return parse(_get(self.url + "/metrics"))
        except ValueError as error:
            raise ServerError(f"{self.url}/metrics cannot be read ({error})") from None


def credentials() -> dict[str, str]:
    """The header that a service with keys asks for; from the environment, where other users do not see it."""
    return {"X-API-Key": key} if (key := os.environ.get(KEY_VARIABLE)) else {}


def _get(url: str) -> str:
    try:
        request = urllib.request.Request(url, headers=credentials())  # noqa: S310 - the URL is the user's own
        with urllib.request.urlopen(request, timeout=TIMEOUT) as answer:  # noqa: S310
            return str(answer.read().decode())
    except urllib.error.HTTPError as error:
        hint = f"give its key in {KEY_VARIABLE}" if error.code == 401 else "is this the service?"
        raise ServerError(f"{url} answered {error.code} {error.reason}: {hint}") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        raise ServerError(f"{url} cannot be reached ({reason}): start the service with `make serve`") from None


def choose(service: Service, description: dict[str, Any], wanted: Sequence[str]) -> tuple[list[Arm], list[Excluded]]:
    """The `wanted` variants that are ready (without any wanted: all), and those that are left out."""
    cards = {str(card["name"]): card for card in description["variants"]}
    arms, excluded = [], []
    for name in wanted or cards:
        arm_name = f"{name} @ {service.label}" if service.label else name
        if name not in cards:
            excluded.append(Excluded(arm_name, f"the service does not offer it; it offers {', '.join(cards)}"))
        elif cards[name]["state"] != "ready":
            reason = cards[name].get("reason")
            excluded.append(Excluded(arm_name, str(cards[name]["state"]) + (f": {reason}" if reason else "")))
        else:
            arms.append(Arm(arm_name, service.url, name, cards[name], service.label))
    return arms, excluded

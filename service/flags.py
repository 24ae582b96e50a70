"""The flags of `python -m service`, one for each setting."""

import argparse
import sys
from collections.abc import Mapping
from typing import Any

from pydantic import ValidationError

from service.settings import ALL, PREFIX, Settings

SWITCHES: dict[Any, dict[str, Any]] = {
    bool: {"action": "store_true"},
    bool | None: {"action": argparse.BooleanOptionalAction},
}
"""How argparse reads a flag without a value, by the type of its field."""


def as_text(value: Any) -> Any:
    """Return a setting as it is written in a flag."""
    if isinstance(value, dict):
        return ",".join(str(number) if name == ALL else f"{name}={number}" for name, number in value.items())
    return ",".join(value) if isinstance(value, tuple) else value


def parse(argv: list[str] | None = None) -> Settings:
    """Return the settings: flags first, then environment, then defaults. Exit with one line per mistake."""
    parser = argparse.ArgumentParser(
        prog="python -m service",
        description="Serve a ResNet, bundled or your own, in several precisions over HTTP.",
    )
    for name, field in Settings.model_fields.items():
        text = f"{field.description} (default {as_text(field.default)}; {PREFIX}{name.upper()})".replace("%", "%%")
        parser.add_argument(
            _flag(name), dest=name, default=argparse.SUPPRESS, help=text, **SWITCHES.get(field.annotation, {})
        )
    given = vars(parser.parse_args(argv))
    try:
        return Settings(**given)
    except ValidationError as error:
        print(*map(_mistake, error.errors()), sep="\n", file=sys.stderr)
        sys.exit(2)


def _mistake(details: Mapping[str, Any]) -> str:
    """Return a line with flag, variable, expectation and value; a key is not shown."""
    name = str(details["loc"][0]) if details["loc"] else "settings"
    got = "a value that is not shown" if name == "api_keys" else repr(details["input"])
    return f"error: {_flag(name)} ({PREFIX}{name.upper()}): {details['msg']}, got {got}"


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")

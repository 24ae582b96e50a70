"""The typed form of `GET /variants`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import TypeAdapter


@dataclass(frozen=True)
class VariantInfo:
    """One row of `GET /variants`: a variant, its state, and what it runs on once it is ready."""

    name: str
    state: str
    reason: str | None = None
    """Why the variant is not ready."""
    reference: str | None = None
    """The variant that the service compares this one with; None for a reference itself."""
    device: str | None = None
    device_name: str | None = None
    dtype: str | None = None
    backend: str | None = None
    backend_version: str | None = None
    isa: str | None = None
    threads: int | None = None
    torch: str | None = None
    load_seconds: float | None = None
    """Seconds that loading took; changes with every restart."""
    checkpoint_sha256: str | None = None
    other: Mapping[str, Any] = field(default_factory=dict)
    """The row's other keys, as the service gave them."""


@dataclass(frozen=True)
class Description:
    """The answer of one service to `GET /variants`."""

    variants: tuple[VariantInfo, ...]
    checkpoint: Mapping[str, Any]
    """What the service says about its weights, as it came."""
    service: Mapping[str, Any]
    """What the service says about itself and its machine, as it came."""


KNOWN = frozenset(field.name for field in fields(VariantInfo)) - {"other"}
ADAPTER = TypeAdapter(Description)


def description(body: Any) -> Description:
    """Return the typed form of a body of `GET /variants`.

    Raises:
        ValueError: a row has no name or state, or a known key has a value of another type.
    """
    try:
        rows = [dict(row) for row in body["variants"]]
    except (KeyError, TypeError) as error:
        raise ValueError(f"there is no list `variants`: {error!r}") from None
    split = [{k: v for k, v in row.items() if k in KNOWN} | {"other": _unknown(row)} for row in rows]
    document = {"variants": split, "checkpoint": body.get("checkpoint", {}), "service": body.get("service", {})}
    return ADAPTER.validate_python(document)


def _unknown(row: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key not in KNOWN}

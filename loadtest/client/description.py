"""The typed form of `GET /variants`."""

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any

from pydantic import TypeAdapter, ValidationError


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
    model_version: str | None = None
    """The versions of the model, as an Open Inference Protocol server names them."""
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
        ValueError: there is no list of rows, a row has no name or state, or a known key has a value of another type.
    """
    rows = body.get("variants") if isinstance(body, dict) else None
    if not isinstance(rows, list) or not all(isinstance(row, dict) for row in rows):
        raise ValueError("there is no list of rows `variants`")
    document = {"checkpoint": {}, "service": {}} | body | {"variants": [_known(row) for row in rows]}
    try:
        return ADAPTER.validate_python(document)
    except ValidationError as error:
        first = error.errors()[0]
        raise ValueError(f"{'.'.join(map(str, first['loc']))}: {first['msg']}") from None


def _known(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return the row with its unknown keys under `other`."""
    known = {key: value for key, value in row.items() if key in KNOWN}
    return known | {"other": {key: value for key, value in row.items() if key not in KNOWN}}

"""The parts of /openapi.json that FastAPI cannot derive: bodies, parameters, every error with an example, keys."""

from collections.abc import Iterable
from typing import Any, Literal

from fastapi import FastAPI
from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.decoding import HEADER_LENGTH, IMAGE_TYPES
from service.errors import REASONS, ServiceError, problem
from service.http.guard import HEALTH
from service.schemas import JSONBody, PredictQuery, Problem
from service.v2.documents import IndexRequest, InferRequest, InferResponse, V2Error

SCHEMES = {
    "bearer": {"type": "http", "scheme": "bearer"},
    "key": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
}
TEMPLATE = "#/components/schemas/{model}"


def reference(model: type[BaseModel]) -> dict[str, str]:
    """Return a reference to the schema of a model that `_schemas` lists."""
    return {"$ref": TEMPLATE.format(model=model.__name__)}


def _schemas() -> dict[str, Any]:
    """Return the schemas of the models that FastAPI does not find by itself."""
    models: list[tuple[type[BaseModel], Literal["validation"]]] = [
        (model, "validation") for model in (JSONBody, Problem, V2Error, InferRequest, InferResponse, IndexRequest)
    ]
    schemas: dict[str, Any] = models_json_schema(models, ref_template=TEMPLATE)[1]["$defs"]
    return schemas


def _binary(description: str) -> dict[str, Any]:
    return {"schema": {"type": "string", "format": "binary", "description": description}, "example": f"<{description}>"}


def _header(name: str, schema: dict[str, Any], description: str) -> dict[str, Any]:
    return {"name": name, "in": "header", "required": False, "schema": schema, "description": description}


VARIANT = {
    "name": "variant",
    "in": "path",
    "required": True,
    "schema": {"title": "Variant", "type": "string", "examples": ["int8"]},
}
QUERY = [
    {"name": name, "in": "query", "required": False, "schema": schema, "description": schema["description"]}
    for name, schema in PredictQuery.model_json_schema()["properties"].items()
]
HEADERS = [
    _header(
        "X-Request-ID",
        {"type": "string", "examples": ["photo-17"]},
        "comes back in the answer if it is 1 to 128 of A-Z a-z 0-9 . _ : -; else the answer has a new one",
    ),
    _header(
        "X-Request-Timeout",
        {"type": "string", "pattern": r"^[0-9]{1,9}(\.[0-9]{1,9})?$", "examples": ["2.5"]},
        "deadline in seconds from the request's headers, at most the service's own",
    ),
]
IMAGES = {
    "parameters": HEADERS,
    "requestBody": {
        "required": True,
        "description": "One image, several, or raw pixels.",
        "content": {
            **{kind: _binary(f"the bytes of an {kind} file") for kind in IMAGE_TYPES},
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["image"],
                    "properties": {"image": {"type": "array", "items": {"type": "string", "format": "binary"}}},
                },
                "example": {"image": ["<the bytes of an image file>"]},
            },
            "application/json": {"schema": reference(JSONBody)},
            "application/octet-stream": _binary(
                "N images of 3 x S x S bytes: uint8, RGB, channel first; S is the input_size of /variants"
            ),
        },
    },
}
INFER = {
    "parameters": [
        *HEADERS,
        _header(
            HEADER_LENGTH,
            {"type": "integer", "minimum": 0, "examples": [141]},
            "length of the JSON before the binary tensors; 0: the body is one tensor",
        ),
    ],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": reference(InferRequest)},
            "application/octet-stream": _binary("JSON and binary tensors, or raw pixels"),
        },
    },
    "responses": {
        "200": {
            "content": {
                "application/json": {"schema": reference(InferResponse)},
                "application/octet-stream": _binary("JSON and binary tensors"),
            }
        }
    },
}
PREDICTION = (400, 404, 408, 413, 415, 422, 503, 504)
"""The statuses of errors that a prediction may end in, besides those that every route has."""


def errors(*statuses: int, v2: bool = False) -> dict[int | str, dict[str, Any]]:
    """Return the OpenAPI answers for error statuses: each row of the error table as an example."""
    kind, model = ("application/json", V2Error) if v2 else ("application/problem+json", Problem)
    answers: dict[int | str, dict[str, Any]] = {}
    for status in statuses:
        rows = [row for row in REASONS.values() if row.status == status]
        examples = {row.word: {"value": _example(row.word, v2)} for row in rows}
        answers[status] = {
            "description": "; ".join(f"{row.title} (`{row.word}`)" for row in rows),
            "content": {kind: {"schema": reference(model), "examples": examples}},
        }
    return answers


def _example(word: str, v2: bool) -> dict[str, Any]:
    detail = "what was expected, or what to do"
    return {"error": detail} if v2 else problem(ServiceError(word, detail), "photo-17")


def _everywhere(path: str, method: str, is_open: bool) -> list[int]:
    """Return the statuses of errors that do not depend on what a route does."""
    from_keys, from_site, from_host = not is_open, method == "post", path not in HEALTH
    return [status for status, holds in ((401, from_keys), (403, from_site), (421, from_host), (500, True)) if holds]


def describe(app: FastAPI, open_paths: Iterable[str], root_path: str, *, has_keys: bool, classes: int) -> None:
    """Add to the app's description what the routes do not tell: keys, the errors of what stands before them, bounds.

    `classes` is the number of the network's classes: no answer can name more.
    """
    needed: list[dict[str, list[str]]] = [{name: []} for name in SCHEMES]
    closed = {"security": needed if has_keys else [{}, *needed]}

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is not None:
            return app.openapi_schema
        document = FastAPI.openapi(app) | ({"servers": [{"url": root_path}]} if root_path else {})
        document["components"]["securitySchemes"] = SCHEMES
        document["components"]["schemas"] |= _schemas()
        document["components"]["schemas"]["OutputParameters"]["properties"]["classification"]["maximum"] = classes
        for path, operations in document["paths"].items():
            is_open, v2 = path in open_paths, path.startswith("/v2")
            for method, operation in operations.items():
                operation.update({} if is_open else closed)
                common = errors(*_everywhere(path, method, is_open), v2=v2)
                operation["responses"] |= {str(status): answer for status, answer in common.items()}
                for parameter in operation.get("parameters", ()):
                    if parameter["name"] == "top_k":
                        parameter["schema"] = parameter["schema"] | {"maximum": classes}
        return document

    app.openapi = openapi  # type: ignore[method-assign]

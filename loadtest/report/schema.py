"""The JSON form of reports, and its schema.

After a change of the types, `python -m loadtest.report.schema` writes report.schema.json again.
"""

import json
from pathlib import Path
from typing import Any

from pydantic import TypeAdapter, ValidationError
from pydantic.json_schema import GenerateJsonSchema

from loadtest.report.document import READABLE, SCHEMA_VERSION, Report

FILE = Path(__file__).with_name("report.schema.json")
ADAPTER = TypeAdapter(Report)


class Untitled(GenerateJsonSchema):
    """A generator of schemas in which a property has no title: it would only repeat the name."""

    def field_title_should_be_set(self, schema: Any) -> bool:
        """Return False, for every field."""
        return False


class NotAReport(ValueError):
    """A file that is no report of this schema version; the text says why."""


def schema() -> dict[str, Any]:
    """Return the JSON Schema of a report."""
    generated = ADAPTER.json_schema(mode="serialization", schema_generator=Untitled)
    generated["properties"]["schema_version"] = {"const": SCHEMA_VERSION}
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **generated}


def to_json(report: Report) -> str:
    """Return the report as JSON.

    Raises:
        ValueError: a number is NaN or infinite, which JSON cannot hold.
    """
    document = ADAPTER.dump_python(report, mode="json")
    return json.dumps(document, allow_nan=False, ensure_ascii=False, separators=(",", ":"))


def read(path: Path) -> Report:
    """Return the report that a file holds.

    A report of an older version in READABLE has the defaults for the fields that it lacks.

    Raises:
        OSError: the file cannot be read.
        NotAReport: the file is no report, or one of another schema version.
    """
    try:
        document = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise NotAReport(f"{path} is not a report of `python -m loadtest`: it is not JSON ({error})") from None
    version = version_of(document)
    if version is None:
        raise NotAReport(f"{path} is not a report of `python -m loadtest`: it has no schema_version")
    if version not in (SCHEMA_VERSION, *READABLE):
        raise NotAReport(
            f"{path} has schema version {version}, and this load test reads version {SCHEMA_VERSION}: "
            "run the load test again, or use the version of the load test that wrote the report"
        )
    try:
        return ADAPTER.validate_json(json.dumps(document | {"schema_version": SCHEMA_VERSION}), strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"]))
        raise NotAReport(f"{path} does not fit schema version {version}: {place}: {first['msg']}") from None


def version_of(document: Any) -> Any:
    """Return the schema version of a parsed report; None if it states none. Version 1 called the key `schema`."""
    return document.get("schema_version", document.get("schema")) if isinstance(document, dict) else None


if __name__ == "__main__":
    FILE.write_text(json.dumps(schema(), indent=1) + "\n", encoding="utf-8")

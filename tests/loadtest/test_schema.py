"""The JSON form of a report and its published schema."""

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest

from common.statistics import Interval
from loadtest.report import schema as code
from loadtest.report.document import SCHEMA_VERSION, Report
from loadtest.report.write import write
from loadtest.slo.level import Found, Level, Slo, Trial
from tests.loadtest.builders import FP32, INT8, played, report, request, settings


@pytest.fixture
def made() -> Report:
    """A report with every kind of part: comparison, accuracy, service level, failed requests."""
    sent = [request(0.1, 0.01, i, "503" if i == 3 else "") for i in range(30)]
    trial = Trial(load=10.0, requests=700, over=0, held=True, limited=False)
    level = ("p99 <= 20 ms", "requests/s", 12.0)
    levels = tuple(
        Level(name, *level, Found(10.0, Interval(11.0, 9.5, 12.5), "", (trial,))) for name in ("fp32", "int8")
    )
    options = settings(slo=Slo("p99", 0.99, 0.02), images=Path("images.npz"))
    return report([played(FP32, sent), played(INT8, sent)], options, levels=levels)


def test_the_published_schema_is_that_of_the_types() -> None:
    """After a change of the types: python -m loadtest.report.schema, and a new SCHEMA_VERSION."""
    assert json.loads(code.FILE.read_text()) == code.schema()


def test_a_report_is_read_as_it_was_written(made: Report, tmp_path: Path) -> None:
    """No field is lost or changed on the way through the file."""
    assert code.read(write(made, tmp_path)[0]) == made


def test_a_report_fits_the_schema(made: Report, schema: jsonschema_rs.Validator) -> None:
    """The validator is independent of the code that wrote the schema."""
    schema.validate(json.loads(code.to_json(made)))


PLACES: dict[str, Callable[[dict[str, Any]], dict[str, Any]]] = {
    "report": lambda document: document,
    "settings": lambda document: document["settings"],
    "client": lambda document: document["client"],
    "variant": lambda document: document["servers"][0]["variants"][0],
    "cell": lambda document: document["cells"][0],
    "memory": lambda document: document["cells"][0]["server"]["memory"],
    "round": lambda document: document["cells"][0]["rounds"][0],
    "interval": lambda document: document["accuracy"][0]["accuracy"],
    "trial": lambda document: document["levels"][0]["found"]["tried"][0],
}


@pytest.mark.parametrize("place", PLACES)
def test_an_unknown_key_is_refused(place: str, made: Report, schema: jsonschema_rs.Validator, tmp_path: Path) -> None:
    """The schema and the reader refuse it at any depth."""
    document = json.loads(code.to_json(made))
    PLACES[place](document)["surprise"] = 1
    assert not schema.is_valid(document)
    path = tmp_path / "changed.json"
    path.write_text(json.dumps(document))
    with pytest.raises(code.NotAReport, match="surprise"):
        code.read(path)


@pytest.mark.parametrize("place", PLACES)
def test_a_missing_key_is_refused(place: str, made: Report, schema: jsonschema_rs.Validator) -> None:
    """A reader of reports can rely on every key."""
    document = json.loads(code.to_json(made))
    part = PLACES[place](document)
    del part[next(iter(part))]
    assert not schema.is_valid(document)


def test_a_number_that_json_cannot_hold_is_an_error(made: Report) -> None:
    """NaN is a mistake of the load test, and not written as null."""
    with pytest.raises(ValueError, match="not JSON compliant"):
        code.to_json(replace(made, seconds=float("nan")))


@pytest.mark.parametrize("version", [{"schema": 1}, {"schema_version": SCHEMA_VERSION + 1}])
def test_another_version_says_what_to_do(version: dict[str, int], tmp_path: Path) -> None:
    """The error names both versions and the ways out."""
    path = tmp_path / "old.json"
    path.write_text(json.dumps(version | {"cells": []}))
    (stated,) = version.values()
    words = f"has schema version {stated}, and this load test reads version {SCHEMA_VERSION}: run the load test again"
    with pytest.raises(code.NotAReport, match=words):
        code.read(path)

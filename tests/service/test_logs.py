"""One line per prediction, for machines and for people."""

import json
import logging
import sys
from contextlib import suppress
from typing import Any

import pytest

from service.logs import JsonFormatter, RequestLog
from service.metrics import PHASES
from tests.service import fakes
from tests.service.pictures import png
from tests.service.processes import running

PNG = {"content-type": "image/png"}
ENDED = ("abc-1", "int8", "ok", 2, 0.0123456789, {"decode": 0.001, "inference": 0.01})


@pytest.fixture(scope="module")
def lines(tmp_path_factory: pytest.TempPathFactory) -> list[dict[str, Any]]:
    """Return the log of a service whose stderr is a file, after predictions, an engine's error and a comparison."""
    path = tmp_path_factory.mktemp("log") / "log"
    with path.open("w") as log, running("--variants", "fp32,int8", module="tests.service.fakes", log=log) as service:
        for route, body in (
            ("/predict/int8", png(3)), ("/predict/int8", b"no image"), ('/predict/fp64" }', png(3)),
            ("/predict/compare", png(3)), ("/predict/fp32", png(fakes.RAISE)), ("/compare", png(3)),
        ):  # fmt: skip
            service.client.post(route, content=body, headers=PNG | {"x-request-id": "abc-1"})
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_line_is_an_object(lines: list[dict[str, Any]]) -> None:
    """Each line has time, level, logger and message, also those of the workers and of uvicorn."""
    assert [line for line in lines if not {"time", "level", "logger", "message"} <= set(line)] == []
    assert {"uvicorn.error", "service.workers.loop", "service.requests"} <= {line["logger"] for line in lines}


def test_a_prediction_is_one_line(lines: list[dict[str, Any]]) -> None:
    """Each prediction and comparison has one line; its variant is `unknown` if it does not exist."""
    found = [line for line in lines if line["logger"] == "service.requests"]
    assert {line["request_id"] for line in found} == {"abc-1"}
    assert [(line["variant"], line["outcome"], line["status"], line["images"]) for line in found] == [
        ("int8", "ok", 200, 1), ("int8", "not_an_image", 400, 0), ("unknown", "unknown_variant", 404, 0),
        ("unknown", "unknown_variant", 404, 0), ("fp32", "internal", 500, 1), ("compare", "ok", 200, 1),
    ]  # fmt: skip
    assert list(found[-1]["phases"]) == ["receive", "decode"]


def test_an_answered_line_has_every_phase(lines: list[dict[str, Any]]) -> None:
    """The phases of an answered line add up to between half and all of the request's time."""
    line = next(line for line in lines if line.get("outcome") == "ok")
    assert tuple(line["phases"]) == PHASES
    assert 0.5 * line["seconds"] < sum(line["phases"].values()) <= line["seconds"] + 1e-5


def test_an_engines_error_carries_its_traceback(lines: list[dict[str, Any]]) -> None:
    """The traceback is one field of one line."""
    (line,) = [line for line in lines if line["logger"] == "service.workers.loop"]
    assert line["level"] == "error"
    assert "RuntimeError: told to" in line["exception"]


def test_a_terminal_gets_a_readable_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """A terminal gets a line with milliseconds instead of JSON."""
    caplog.set_level(logging.INFO, "service.logs")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    RequestLog(["int8"])(*ENDED)
    expected = "INFO int8 200 ok images=2 ms=12.35 decode=1.00 inference=10.00 id=abc-1\n"
    assert capsys.readouterr().err == expected


def test_a_higher_level_leaves_the_lines_out(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """At `--log-level warning` a prediction has no line."""
    caplog.set_level(logging.WARNING, "service.logs")
    RequestLog(["int8"])(*ENDED)
    assert capsys.readouterr().err == ""


def test_a_line_that_cannot_be_written_costs_no_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk and a closed stream raise nothing."""
    caplog.set_level(logging.INFO, "service.logs")
    with open("/dev/full", "w", buffering=1) as full:  # noqa: PTH123 - a device, not a file
        monkeypatch.setattr(sys, "stderr", full)
        RequestLog(["int8"])(*ENDED)
        monkeypatch.undo()
        with suppress(OSError):
            full.close()


def test_a_quote_in_a_message_is_escaped() -> None:
    """A line with quotes and line ends in its message is still JSON."""
    record = logging.LogRecord("x", logging.INFO, "", 0, 'a "%s"\n', ("b",), None)
    assert json.loads(JsonFormatter().format(record))["message"] == 'a "b"\n'

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
    """All that a service whose stderr is a file logs: predictions, one that the engine spoils, and a comparison."""
    path = tmp_path_factory.mktemp("log") / "log"
    with path.open("w") as log, running("--variants", "fp32,int8", module="tests.service.fakes", log=log) as service:
        for route, body in (
            ("/predict/int8", png(3)), ("/predict/int8", b"no image"), ('/predict/fp64" }', png(3)),
            ("/predict/compare", png(3)), ("/predict/fp32", png(fakes.RAISE)), ("/compare", png(3)),
        ):  # fmt: skip
            service.client.post(route, content=body, headers=PNG | {"x-request-id": "abc-1"})
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_every_line_is_an_object(lines: list[dict[str, Any]]) -> None:
    """Time, level, logger and message are on each, those of the workers and of uvicorn included."""
    assert [line for line in lines if not {"time", "level", "logger", "message"} <= set(line)] == []
    assert {"uvicorn.error", "service.workers.loop", "service.requests"} <= {line["logger"] for line in lines}


def test_a_prediction_is_one_line(lines: list[dict[str, Any]]) -> None:
    """Its outcome, status and images; a variant that does not exist is not spelt out."""
    found = [line for line in lines if line["logger"] == "service.requests"]
    assert {line["request_id"] for line in found} == {"abc-1"}
    assert [(line["variant"], line["outcome"], line["status"], line["images"]) for line in found] == [
        ("int8", "ok", 200, 1), ("int8", "not_an_image", 400, 0), ("unknown", "unknown_variant", 404, 0),
        ("unknown", "unknown_variant", 404, 0), ("fp32", "internal", 500, 1), ("compare", "ok", 200, 1),
    ]  # fmt: skip
    assert list(found[-1]["phases"]) == ["receive", "decode"]


def test_an_answered_line_has_every_phase(lines: list[dict[str, Any]]) -> None:
    """They add up to what the request took, less what came after the answer was put together."""
    line = next(line for line in lines if line.get("outcome") == "ok")
    assert tuple(line["phases"]) == PHASES
    assert 0.5 * line["seconds"] < sum(line["phases"].values()) <= line["seconds"] + 1e-5


def test_an_engines_error_carries_its_traceback(lines: list[dict[str, Any]]) -> None:
    """In one line, as one field."""
    (line,) = [line for line in lines if line["logger"] == "service.workers.loop"]
    assert line["level"] == "error"
    assert "RuntimeError: told to" in line["exception"]


def test_a_terminal_gets_a_readable_line(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """Milliseconds, and no braces."""
    caplog.set_level(logging.INFO, "service.logs")
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    RequestLog(["int8"])(*ENDED)
    expected = "INFO int8 200 ok images=2 ms=12.35 decode=1.00 inference=10.00 id=abc-1\n"
    assert capsys.readouterr().err == expected


def test_a_higher_level_leaves_the_lines_out(
    caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    """`--log-level warning`."""
    caplog.set_level(logging.WARNING, "service.logs")
    RequestLog(["int8"])(*ENDED)
    assert capsys.readouterr().err == ""


def test_a_line_that_cannot_be_written_costs_no_answer(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A full disk, a lost pipe, a closed stream."""
    caplog.set_level(logging.INFO, "service.logs")
    with open("/dev/full", "w", buffering=1) as full:  # noqa: PTH123 - a device, not a file
        monkeypatch.setattr(sys, "stderr", full)
        RequestLog(["int8"])(*ENDED)
        monkeypatch.undo()
        with suppress(OSError):
            full.close()


def test_a_quote_in_a_message_is_escaped() -> None:
    """Whatever a library logs, the line can be parsed."""
    record = logging.LogRecord("x", logging.INFO, "", 0, 'a "%s"\n', ("b",), None)
    assert json.loads(JsonFormatter().format(record))["message"] == 'a "b"\n'
